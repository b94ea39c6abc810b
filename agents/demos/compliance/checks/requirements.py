"""What a distribution depends on: https://packaging.python.org/en/latest/specifications/dependency-specifiers/"""

import os
import platform
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from demos.compliance.checks.versions import satisfies
from demos.compliance.installed import normalized

_REQUIREMENT = re.compile(
    r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?:\[(?P<extras>[^\]]*)\])?\s*"
    r"(?:@\s*(?P<url>[^;\s]+)|\(?(?P<specifiers>[^;@()]*)\)?)\s*(?:;(?P<marker>.*))?",
    re.DOTALL,
)
_TOKEN = re.compile(
    r"\s*(?:(?P<bracket>[()])|(?P<text>'[^']*'|\"[^\"]*\")|(?P<operator>===|~=|==|!=|<=|>=|<|>|not\s+in\b|in\b)"
    r"|(?P<joint>and\b|or\b)|(?P<variable>[a-z_.]+))\s*"
)
_VERSION_VARIABLES = frozenset({"python_version", "python_full_version", "implementation_version"})

DEPTH = 20
"""Nested brackets; more are no marker that a person wrote."""


@dataclass(frozen=True, slots=True)
class Requirement:
    """A distribution that is needed, and in which versions; `marker` says when, and is empty where always."""

    name: str
    specifiers: str
    marker: str

    @classmethod
    def parse(cls, text: str) -> "Requirement":
        """Read a line `Requires-Dist`.

        Raises:
            ValueError: where it can't be read.
        """
        match = _REQUIREMENT.fullmatch(text.strip())
        if match is None:
            raise ValueError(f'"{text}" is no requirement')
        return cls(normalized(match["name"]), (match["specifiers"] or "").strip(), (match["marker"] or "").strip())

    def is_wanted(self, variables: Mapping[str, str]) -> bool:
        """Whether it is needed where the variables of markers have these values.

        Raises:
            ValueError: where its marker can't be read.
        """
        return not self.marker or _evaluate(self.marker, variables)


def variables_here() -> Mapping[str, str]:
    """The variables of markers for this interpreter, without an extra."""
    release = sys.implementation.version
    level = {"alpha": "a", "beta": "b", "candidate": "rc"}.get(release.releaselevel, "")
    version = f"{release.major}.{release.minor}.{release.micro}" + (f"{level}{release.serial}" if level else "")
    return {
        "extra": "",
        "implementation_name": sys.implementation.name,
        "implementation_version": version,
        "os_name": os.name,
        "platform_machine": platform.machine(),
        "platform_python_implementation": platform.python_implementation(),
        "platform_release": platform.release(),
        "platform_system": platform.system(),
        "platform_version": platform.version(),
        "python_full_version": platform.python_version(),
        "python_version": ".".join(platform.python_version_tuple()[:2]),
        "sys_platform": sys.platform,
    }


def _evaluate(marker: str, variables: Mapping[str, str]) -> bool:
    tokens: list[tuple[str, str]] = []
    at = 0
    while at < len(marker):
        match = _TOKEN.match(marker, at)
        if match is None or match.lastgroup is None:
            raise ValueError(f'"{marker}" is no marker')
        tokens.append((match.lastgroup, match[match.lastgroup]))
        at = match.end()
    tokens.reverse()
    value = _Reader(tokens, variables).either(DEPTH)
    if tokens:
        raise ValueError(f'"{marker}" is no marker: "{tokens[-1][1]}" is out of place')
    return value


@dataclass(frozen=True, slots=True)
class _Reader:
    """Reads a marker from its tokens, of which the next is the last one; `and` binds closer than `or`."""

    tokens: list[tuple[str, str]]
    variables: Mapping[str, str]

    def either(self, depth: int) -> bool:
        value = self._both(depth)
        while self._take("joint", "or"):
            value = self._both(depth) or value
        return value

    def _both(self, depth: int) -> bool:
        value = self._one(depth)
        while self._take("joint", "and"):
            value = self._one(depth) and value
        return value

    def _one(self, depth: int) -> bool:
        if self._take("bracket", "("):
            if not depth:
                raise ValueError(f"a marker has more than {DEPTH} brackets in each other")
            value = self.either(depth - 1)
            if not self._take("bracket", ")"):
                raise ValueError("a bracket of a marker is not closed")
            return value
        left, by_version = self._operand()
        operator = "".join(self._next("operator").split())
        right, right_by_version = self._operand()
        return _compare(left, operator, right, by_version=by_version or right_by_version)

    def _take(self, kind: str, text: str) -> bool:
        if self.tokens and self.tokens[-1] == (kind, text):
            self.tokens.pop()
            return True
        return False

    def _next(self, kind: str) -> str:
        if not self.tokens or self.tokens[-1][0] != kind:
            raise ValueError(f"a marker lacks its {kind}")
        return self.tokens.pop()[1]

    def _operand(self) -> tuple[str, bool]:
        """The value of a text or a variable, and whether it is a version."""
        if self.tokens and self.tokens[-1][0] == "text":
            return self.tokens.pop()[1][1:-1], False
        name = self._next("variable")
        if name not in self.variables:
            raise ValueError(f"a marker names {name}, which is none of the variables")
        return self.variables[name], name in _VERSION_VARIABLES


def _compare(left: str, operator: str, right: str, *, by_version: bool) -> bool:
    if operator in ("in", "notin"):
        return (left in right) == (operator == "in")
    if by_version:
        return satisfies(left, operator + right)
    if operator not in ("==", "!="):
        raise ValueError(f'a marker compares "{left}" by {operator}, which is for versions')
    return (left == right) == (operator == "==")
