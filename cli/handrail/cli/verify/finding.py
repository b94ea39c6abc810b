"""The findings of the checker."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Breach(StrEnum):
    """The kind of a broken promise."""

    LOST = "lost"
    """Something that was acknowledged or stored is missing, or does not count."""
    DOUBLED = "doubled"
    """Something that may exist once exists twice."""
    HUNG = "hung"
    """A flow is neither final nor visibly waiting."""
    WRONG = "wrong"
    """Something contradicts the template, or the installation's answer."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach. `flow_id` is empty if it is not about a flow; `sequence` is 0 if no message shows it."""

    breach: Breach
    text: str
    flow_type: str = ""
    flow_id: str = ""
    sequence: int = 0


def counted(findings: Iterable[Finding]) -> Mapping[Breach, int]:
    """Counts the findings of each kind, zeros included."""
    found = Counter(finding.breach for finding in findings)
    return {breach: found[breach] for breach in Breach}
