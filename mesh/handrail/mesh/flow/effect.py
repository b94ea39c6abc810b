"""Effects: what steps changed outside the stream, and how far each is undone."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

from handrail.mesh.flow.starts import NO_STARTS, Starts
from handrail.mesh.template import StepSpec
from handrail.mesh.wire.envelope import Recorded


class EffectState(Enum):
    """The state of an effect."""

    DONE = auto()
    UNDOING = auto()
    UNDONE = auto()
    UNDONE_BY_HAND = auto()
    ACCEPTED = auto()
    UNDO_FAILED = auto()
    IRREVERSIBLE = auto()


@dataclass(frozen=True, slots=True)
class Effect:
    """A change that a step made outside the stream, reported by `recorded`, and the progress of its undo.

    `attempt` is the current undo attempt, 0 before the first, requested at `since`. `deadline` is set while an attempt
    runs, `retry_at` before the next one. An `orphan` came from a superseded run: it is undone in any case.
    `counted_from`, `asked`, `queued` and `begun` mean the same as in a step run.
    """

    recorded: Recorded
    step: StepSpec
    state: EffectState
    orphan: bool = False
    attempt: int = 0
    budget: int = 1
    asked: int = 0
    since: datetime | None = None
    queued: bool = False
    begun: bool = False
    deadline: datetime | None = None
    counted_from: datetime | None = None
    retry_at: datetime | None = None
    last_error: str = ""
    undone_by: Recorded | None = None
    starts: Starts = NO_STARTS

    @property
    def subject(self) -> str:
        """The identity of its current undo attempt."""
        return f"{self.recorded.event_id}:{self.attempt}"

    @property
    def stands(self) -> bool:
        """Whether a compensation still has to deal with it."""
        return self.state in (EffectState.DONE, EffectState.UNDOING, EffectState.UNDO_FAILED)

    @property
    def stays(self) -> bool:
        """Whether it stands for good: it can't be undone, or a person accepted it."""
        return self.state in (EffectState.IRREVERSIBLE, EffectState.ACCEPTED)
