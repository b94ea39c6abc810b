"""The SDK's errors that an agent's author may raise or see."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class NonRetryable(Exception):
    """Raise it in a handler if a retry can't help: the step fails at once.

    A handler that raises it states that its effect did not happen; raise `OutcomeUnknown` if that is uncertain.
    """


class OutcomeUnknown(Exception):
    """Raise it in a handler if the effect may have happened anyway: a charge was sent, and no answer arrived.

    The handler is called again at once, under the same idempotency key. If that does not settle the outcome, the
    attempt fails with an unknown outcome: the template's `retry` follows, and if no retry settles it, the flow waits
    for a person who finds out.
    """


class DeclarationError(Exception):
    """The agent's code can't work: a handler can't be understood, or handlers don't fit the stored templates.

    `problems` has one line each, with what to change.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


class AgentNotRunning(Exception):
    """A call needs the agent's connection, but the agent is not running."""


class Stopping(Exception):
    """The worker stops: work that still waits for the broker is handed back to another worker."""


class Postponed(Exception):
    """This worker can't handle a delivery now; another worker may, or this one later.

    `at_most` bounds the delay until the delivery comes again.
    """

    at_most: timedelta = timedelta.max


class Busy(Postponed):
    """This worker has no capacity: its threads are taken, or a handler must run alone."""


class NoHandler(Postponed):
    """The delivery belongs to a version of the flow type that this worker's handlers don't fit."""


class HandlerFailed(Exception):
    """A handler's final error, an `Exception` or not: it ends this attempt and nothing else.

    `outcome_unknown` is set if one of its calls in this attempt may have had its effect. `retryable` is unset if the
    handler said that a retry can't help.
    """

    def __init__(self, raised: BaseException, *, outcome_unknown: bool = False) -> None:
        self.raised = raised
        self.error_class = type(raised).__name__
        self.text = text_of(raised)
        self.outcome_unknown = outcome_unknown
        self.retryable = not isinstance(raised, NonRetryable)
        super().__init__(self.text)


def text_of(error: BaseException) -> str:
    """Returns the text of an error, or a note if the error can't be converted to text."""
    try:
        return str(error)
    except Exception as broken:
        return f"its text is not available: {type(broken).__name__}"
