"""Errors of the SDK that an agent's author meets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class NonRetryable(Exception):
    """Raise it in a handler where trying again can't help: the step fails at once.

    A handler that raises says that its effect did not happen; see `OutcomeUnknown` for where that can't be said.
    """


class OutcomeUnknown(Exception):
    """Raise it in a handler where the effect may have happened all the same: a charge was sent, and no answer came.

    The handler is called again at once, as after a blip, under the same idempotency key. Where that settles nothing the
    attempt fails with an unknown outcome: the template's `retry` follows, and in the end the flow does not go by as if
    nothing had happened, but waits for a person who finds out.
    """


class DeclarationError(Exception):
    """The agent's code can't work: a handler that can't be read, or handlers that don't fit the stored templates.

    `problems` has one line each, with what to change.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class AgentNotRunning(Exception):
    """Something was asked of an agent that needs its connection, and it has none: it is not running."""


class Stopping(Exception):
    """The worker stops: what still waits for the broker is handed back to another worker."""


class Postponed(Exception):
    """This worker can't handle a delivery; another one may, or a later one.

    `at_most` bounds how long the delivery is handed back for.
    """

    at_most: timedelta = timedelta.max


class Busy(Postponed):
    """This worker has no room: its threads are taken, or it has something to run that nothing may run beside."""


class NoHandler(Postponed):
    """The delivery is for a version of the flow type that this worker's handlers don't fit."""


class HandlerFailed(Exception):
    """What a handler raised, in the end: it ends this attempt, and nothing else, be it an `Exception` or not.

    `outcome_unknown` is set where one of its calls in this attempt may have had its effect. `retryable` is unset where
    the handler said that trying again can't help.
    """

    def __init__(self, raised: BaseException, *, outcome_unknown: bool = False) -> None:
        self.raised = raised
        self.error_class = type(raised).__name__
        self.text = text_of(raised)
        self.outcome_unknown = outcome_unknown
        self.retryable = not isinstance(raised, NonRetryable)
        super().__init__(self.text)


def text_of(error: BaseException) -> str:
    """What an error says; where it can't even say that, so much."""
    try:
        return str(error)
    except Exception as broken:
        return f"its text can't be made: {type(broken).__name__}"
