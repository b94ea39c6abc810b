"""Step runs: one run of a step, with its trigger and its attempts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum, auto

from handrail.mesh.flow.starts import NO_STARTS, Starts
from handrail.mesh.template import StepSpec
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.template_pb2 import EFFECT_NONE


def attempts(number: int) -> str:
    """A number of attempts, as text for people."""
    return "1 attempt" if number == 1 else f"{number} attempts"


class RunState(Enum):
    """The state of a step run."""

    OWED = auto()
    BACKOFF = auto()
    DONE = auto()
    FAILED = auto()
    NOT_STARTED = auto()
    UNDONE = auto()
    SUPERSEDED = auto()


@dataclass(frozen=True, slots=True)
class StepRun:
    """One run of a step: its trigger and its attempts.

    `attempt` is the current or last one, `budget` the number of allowed attempts. `unknown` are the attempts that may
    have had an unreported effect (they timed out, or the handler killed its process), until an outcome comes or a
    person accepts that none will come. A later attempt reports only for itself. Absences move the deadline from
    `counted_from` on; None: from `since`. `refused` says why an answer of the current attempt is void.

    `asked` is the stream position of the message that the agent receives for the current attempt. `queued` is set once
    that message was found in the agent's queue, `begun` once a worker announced that it began, or has had time to.
    """

    step: StepSpec
    root: str
    trigger: Recorded
    inputs: tuple[str, ...]
    since: datetime
    deadline: datetime
    budget: int
    run: int = 0
    attempt: int = 1
    state: RunState = RunState.OWED
    retry_at: datetime | None = None
    outputs: Mapping[int, str] = field(default_factory=dict)
    output_total: int = 0
    ended: datetime | None = None
    last_error: str = ""
    refused: str = ""
    unknown: frozenset[int] = frozenset()
    counted_from: datetime | None = None
    starts: Starts = NO_STARTS
    asked: int = 0
    queued: bool = False
    begun: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Its identity within the flow: step and root."""
        return (self.step.name, self.root)

    @property
    def subject(self) -> str:
        """The identity of its current attempt within the step."""
        return f"{self.root}:{self.run}:{self.attempt}"

    @property
    def failure(self) -> str:
        """Why there is no further attempt, as text for people."""
        doubt = "; whether it had its effect is unknown" if self.may_have_effect else ""
        return f"step {self.step.name} failed for good after {attempts(self.attempt)}: {self.last_error}{doubt}"

    @property
    def is_open(self) -> bool:
        """Whether it still waits: for the agent, the backoff, or a person."""
        return self.state in _OPEN

    @property
    def may_have_effect(self) -> bool:
        """Whether an unreported effect may have happened."""
        if self.step.effect == EFFECT_NONE:
            return False
        return self.state is RunState.OWED or (bool(self.unknown) and self.state in (RunState.BACKOFF, RunState.FAILED))


_OPEN = (RunState.OWED, RunState.BACKOFF, RunState.FAILED, RunState.NOT_STARTED)
