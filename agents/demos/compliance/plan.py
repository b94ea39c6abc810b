"""The plan of a run: which copies are tampered with, and a person's answers. Drawn from the seed before the run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from demos.compliance.expected import Expected
from handrail.v1.decision_pb2 import Choice

# One escalation in so many is answered with a no; each answer occurs at least once if there are two or more.
REFUSED_EVERY = 3


class Tampering(StrEnum):
    """The tampering with a copy, and its time."""

    NONE = "nobody changes it"
    BEFORE = "a file is changed before the checks"
    AFTER = "a file is changed after the approval"
    HIDDEN = "a file is changed after the approval, and its RECORD is rewritten to match"

    @property
    def is_later(self) -> bool:
        """Whether it happens after the approval."""
        return self in (Tampering.AFTER, Tampering.HIDDEN)


class Ending(StrEnum):
    """The end of a distribution's flow."""

    APPROVED = "approved"
    REMARKED = "approved with a remark"
    GRANTED = "approved by a person"
    REFUSED = "refused by a person"
    NEVER_APPROVED = "tampered with, never approved"
    WITHDRAWN = "tampered with, approval withdrawn"


@dataclass(frozen=True, slots=True)
class Plan:
    """By the key of the flow: the tampering with each copy, and a person's answer if asked."""

    tampering: Mapping[str, Tampering]
    answers: Mapping[str, Choice.ValueType]

    @classmethod
    def draw(cls, tampering: Mapping[str, Tampering], expected: Mapping[str, Expected], seed: int) -> "Plan":
        """Draws the answers: the same distributions and the same seed give the same plan."""
        random = Random(seed)
        asked = [key for key, each in sorted(expected.items()) if each.needs_person]
        count = 0 if len(asked) < 2 else max(1, len(asked) // REFUSED_EVERY)
        refused = set(random.sample(asked, count))
        answers = {key: Choice.CHOICE_CANCEL if key in refused else Choice.CHOICE_RESUME for key in asked}
        return cls(tampering, answers)

    def endings(self, key: str, expected: Expected) -> Sequence[Ending]:
        """The possible ends of a flow. There are several if a person's no races with a file that was changed before."""
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
    """Chooses the distributions to copy and the tampering with each: one of each kind, if there are enough."""
    names = sorted(candidates)
    kinds = [Tampering.AFTER, Tampering.BEFORE, Tampering.HIDDEN, Tampering.NONE][: len(names)]
    return dict(zip(Random(seed).sample(names, len(kinds)), kinds, strict=True))
