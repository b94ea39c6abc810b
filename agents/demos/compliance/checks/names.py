"""The check of names: names that are known to be bad, and names that can be mistaken for a popular one.

The shipped list is an example: a few names of packages that impersonated others and were taken down, and a few dozen
popular projects. It shows what the check does; for protection, keep your own list.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from demos.compliance.findings import Findings
from demos.compliance.installed import Installed, normalized

SHORT = 5
"""Shorter names are not compared: too many good ones differ in one letter."""


@dataclass(frozen=True, slots=True)
class Names:
    """Bad names with a description, popular names, and good names that look like a popular one."""

    bad: Mapping[str, str]
    popular: frozenset[str]
    good: frozenset[str]

    @classmethod
    def load(cls, path: Path) -> "Names":
        """Reads the list.

        Raises:
            OSError: if the file can't be read.
            ValueError: if it is not a list of names.
        """
        try:
            read = yaml.safe_load(path.read_text("utf-8"))
            bad = {normalized(name): str(reason) for name, reason in read["bad"].items()}
            return cls(bad, frozenset(map(normalized, read["popular"])), frozenset(map(normalized, read["good"])))
        except (yaml.YAMLError, TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path} is not a list of names (bad, popular, good): {error!r}") from error

    def look_alike(self, name: str) -> str:
        """The popular name for which a name can be mistaken; empty if there is none."""
        if name in self.popular or name in self.good or len(name) < SHORT:
            return ""
        plain = _plain(name)
        return next(
            (
                popular
                for popular in sorted(self.popular)
                if len(popular) >= SHORT and (_plain(popular) == plain or _differ_in_one(popular, name))
            ),
            "",
        )


def check(installed: Installed, names: Names) -> Findings:
    """Checks the name of a distribution."""
    findings = Findings()
    name = installed.distribution.name
    if name in names.bad:
        findings.grave("NAME_KNOWN_BAD", name, f"this name is known to be bad: {names.bad[name]}")
    else:
        popular = names.look_alike(name)
        if popular:
            findings.failure("NAME_LOOKS_ALIKE", name, f"it can be mistaken for {popular}")
    return findings


def _plain(name: str) -> str:
    """A name without hyphens, and with letters for the digits that look like them."""
    return name.replace("-", "").translate(str.maketrans("015", "ols"))


def _differ_in_one(one: str, other: str) -> bool:
    """Whether a single letter was added, left out or replaced, or two neighbours were swapped."""
    if len(one) > len(other):
        one, other = other, one
    if len(other) - len(one) > 1:
        return False
    start = next((at for at, (left, right) in enumerate(zip(one, other, strict=False)) if left != right), len(one))
    if len(one) < len(other):
        return one[start:] == other[start + 1 :]
    swapped = one[:start] + one[start : start + 2][::-1] + one[start + 2 :]
    return one[start + 1 :] == other[start + 1 :] or swapped == other
