"""Versions and what is required of them: https://packaging.python.org/en/latest/specifications/version-specifiers/"""

import re
from dataclasses import dataclass
from functools import total_ordering

_VERSION = re.compile(
    r"v?(?:(?P<epoch>\d{1,9})!)?(?P<release>\d{1,18}(?:\.\d{1,18}){0,20})"
    r"(?:[-_.]?(?P<pre>alpha|a|beta|b|preview|pre|c|rc)[-_.]?(?P<pre_number>\d{1,18})?)?"
    r"(?:-(?P<implicit_post>\d{1,18})|[-_.]?(?P<post>post|rev|r)[-_.]?(?P<post_number>\d{1,18})?)?"
    r"(?:[-_.]?(?P<dev>dev)[-_.]?(?P<dev_number>\d{1,18})?)?"
    r"(?:\+(?P<local>[a-z0-9]+(?:[-_.][a-z0-9]+)*))?",
    re.IGNORECASE,
)
_PRE = {"alpha": "a", "beta": "b", "c": "rc", "pre": "rc", "preview": "rc"}
_SPECIFIER = re.compile(r"(?P<operator>===|~=|==|!=|<=|>=|<|>)\s*(?P<version>[^\s,]+)")
_WILDCARD = ".*"

# What sorts before and after everything that a version can have in this place.
_FIRST, _LAST = ("", -1), ("~", 0)


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Version:
    """A version as it is compared. `pre` is kind and number; `post` and `dev` are None where it has none."""

    epoch: int
    release: tuple[int, ...]
    pre: tuple[str, int] | None
    post: int | None
    dev: int | None
    local: tuple[tuple[bool, int, str], ...]

    @classmethod
    def parse(cls, text: str) -> "Version":
        """Read a version.

        Raises:
            ValueError: where it is none.
        """
        match = _VERSION.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" is no version')
        pre = match["pre"].lower() if match["pre"] else ""
        has_post = match["post"] or match["implicit_post"]
        parts = re.split(r"[-_.]", match["local"].lower()) if match["local"] else []
        return cls(
            epoch=int(match["epoch"] or 0),
            release=tuple(map(int, match["release"].split("."))),
            pre=(_PRE.get(pre, pre), int(match["pre_number"] or 0)) if pre else None,
            post=int(match["implicit_post"] or match["post_number"] or 0) if has_post else None,
            dev=int(match["dev_number"] or 0) if match["dev"] else None,
            # A number is greater than a word.
            local=tuple((part.isdigit(), int(part) if part.isdigit() else 0, part) for part in parts),
        )

    @property
    def public(self) -> "Version":
        """The version without its local part."""
        return Version(self.epoch, self.release, self.pre, self.post, self.dev, ())

    @property
    def base(self) -> tuple[int, tuple[int, ...]]:
        """Epoch and release; trailing zeros mean nothing."""
        release = list(self.release)
        while len(release) > 1 and not release[-1]:
            release.pop()
        return self.epoch, tuple(release)

    @property
    def is_prerelease(self) -> bool:
        """Whether it comes before a release."""
        return self.pre is not None or self.dev is not None

    def starts_with(self, prefix: tuple[int, ...], epoch: int) -> bool:
        """Whether its release begins with these numbers, filled up with zeros."""
        filled = self.release + (0,) * (len(prefix) - len(self.release))
        return self.epoch == epoch and filled[: len(prefix)] == prefix

    @property
    def _order(self) -> tuple[object, ...]:
        if self.pre is None and self.post is None and self.dev is not None:
            pre: tuple[str, int] = _FIRST
        else:
            pre = self.pre or _LAST
        post = -1 if self.post is None else self.post
        dev = (1, 0) if self.dev is None else (0, self.dev)
        return self.base, pre, post, dev, self.local

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Version) and self._order == other._order

    def __lt__(self, other: "Version") -> bool:
        return self._order < other._order

    def __hash__(self) -> int:
        return hash(self._order)


def satisfies(version: str, specifiers: str) -> bool:
    """Whether a version meets all of the comma-separated specifiers; with none, every version does.

    Raises:
        ValueError: where the version or a specifier can't be read.
    """
    met = [_meets(version, each.strip()) for each in specifiers.split(",") if each.strip()]
    return all(met)


def _meets(text: str, specifier: str) -> bool:
    match = _SPECIFIER.fullmatch(specifier)
    if match is None:
        raise ValueError(f'"{specifier}" is no version specifier')
    operator, wanted_text = match["operator"], match["version"]
    if operator == "===":
        return text.strip().lower() == wanted_text.lower()
    wildcard = operator in ("==", "!=") and wanted_text.endswith(_WILDCARD)
    wanted = Version.parse(wanted_text.removesuffix(_WILDCARD) if wildcard else wanted_text)
    version = Version.parse(text)
    if wildcard:
        return version.starts_with(wanted.release, wanted.epoch) == (operator == "==")
    if operator in ("==", "!="):
        same = (version if wanted.local else version.public) == wanted
        return same == (operator == "==")
    public = version.public
    match operator:
        case "~=":
            if len(wanted.release) < 2:
                raise ValueError(f'"{specifier}" needs two numbers at least')
            return public >= wanted and version.starts_with(wanted.release[:-1], wanted.epoch)
        case "<=":
            return public <= wanted
        case ">=":
            return public >= wanted
        case "<":  # not a pre-release of the version that is excluded
            before = version.is_prerelease and not wanted.is_prerelease and version.base == wanted.base
            return version < wanted and not before
        case _:  # ">": not a post-release or a local variant of it
            after = version.base == wanted.base and (
                (version.post is not None and wanted.post is None) or bool(version.local)
            )
            return version > wanted and not after
