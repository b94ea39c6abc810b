"""What is to happen in a run: who tampers with what, and what a person answers. Drawn from the seed before it runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from demos.compliance.expected import Expected
from handrail.v1.decision_pb2 import Choice

# One escalation in this many is answered with a no; at least one of each answer where there are two or more.
REFUSED_EVERY = 3


class Tampering(StrEnum):
    """What is done to a copy, and when."""

    NONE = "nobody touches it"
    BEFORE = "a file is changed before it is checked"
    AFTER = "a file is changed once it is approved"
    HIDDEN = "a file is changed once it is approved, and its RECORD is rewritten to fit"

    @property
    def is_later(self) -> bool:
        """Whether it comes after the approval."""
        return self in (Tampering.AFTER, Tampering.HIDDEN)


class Ending(StrEnum):
    """How the flow of a distribution ends."""

    APPROVED = "approved"
    REMARKED = "approved with a remark"
    GRANTED = "approved by a person"
    REFUSED = "refused by a person"
    NEVER_APPROVED = "tampered with, never approved"
    WITHDRAWN = "tampered with, approval withdrawn"


@dataclass(frozen=True, slots=True)
class Plan:
    """By the keys of flows: what is done to each copy, and what a person answers if asked."""

    tampering: Mapping[str, Tampering]
    answers: Mapping[str, Choice.ValueType]

    @classmethod
    def draw(cls, tampering: Mapping[str, Tampering], expected: Mapping[str, Expected], seed: int) -> "Plan":
        """Draw the answers: the same distributions and the same seed give the same plan."""
        random = Random(seed)
        asked = [key for key, each in sorted(expected.items()) if each.needs_person]
        count = 0 if len(asked) < 2 else max(1, len(asked) // REFUSED_EVERY)
        refused = set(random.sample(asked, count))
        answers = {key: Choice.CHOICE_CANCEL if key in refused else Choice.CHOICE_RESUME for key in asked}
        return cls(tampering, answers)

    def endings(self, key: str, expected: Expected) -> Sequence[Ending]:
        """How a flow may end. More than one way only where a person's no races with a file that was changed before."""
        refused = self.answers.get(key) == Choice.CHOICE_CANCEL
        if expected.changed:
            return [Ending.NEVER_APPROVED, *([Ending.REFUSED] if refused else [])]
        if refused:
            return [Ending.REFUSED]
        if self.tampering.get(key, Tampering.NONE).is_later:
            return [Ending.WITHDRAWN]
        if key in self.answers:
            return [Ending.GRANTED]
        return [Ending.REMARKED if expected.failed else Ending.APPROVED]


def draw_copies(candidates: Iterable[str], seed: int) -> dict[str, Tampering]:
    """Which distributions are copied, and what is done to each copy: one for each way, as far as there are enough."""
    names = sorted(candidates)
    kinds = [Tampering.AFTER, Tampering.BEFORE, Tampering.HIDDEN, Tampering.NONE][: len(names)]
    return dict(zip(Random(seed).sample(names, len(kinds)), kinds, strict=True))
