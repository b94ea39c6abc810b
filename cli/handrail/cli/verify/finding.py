"""What the checker finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Breach(StrEnum):
    """In what way a promise was broken."""

    LOST = "lost"
    """Something that was acknowledged, or stored, is not there or does not count."""
    DOUBLED = "doubled"
    """Something that may be there once is there twice."""
    HUNG = "hung"
    """A flow is neither final nor visibly waiting."""
    WRONG = "wrong"
    """What is there contradicts the template, or what the installation says of it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One breach. `flow_id` is empty where it is about no flow; `sequence` is 0 where no message shows it."""

    breach: Breach
    text: str
    flow_type: str = ""
    flow_id: str = ""
    sequence: int = 0


def counted(findings: Iterable[Finding]) -> Mapping[Breach, int]:
    """How many there are of each breach; 0 where there is none."""
    found = Counter(finding.breach for finding in findings)
    return {breach: found[breach] for breach in Breach}
