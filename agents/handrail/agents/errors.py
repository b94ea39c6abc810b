"""Errors of the SDK that an agent's author meets."""

from __future__ import annotations

from collections.abc import Sequence


class NonRetryable(Exception):
    """Raise it in a handler where trying again can't help: the step fails at once.

    A handler that raises says that its effect did not happen.
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
    """This worker can't handle a delivery; another one may, or a later one."""


class Busy(Postponed):
    """This worker has something to run that nothing may run beside."""


class HandlerExit(Exception):
    """A handler raised what is no `Exception`: SystemExit, KeyboardInterrupt, a panic of foreign code.

    It ends the attempt, and nothing else. `error_class` names what was raised.
    """

    def __init__(self, raised: BaseException) -> None:
        self.error_class = type(raised).__name__
        super().__init__(text_of(raised))


class NoHandler(Postponed):
    """The delivery is for a version of the flow type that this worker's handlers don't fit."""


def text_of(error: BaseException) -> str:
    """What an error says; where it can't even say that, so much."""
    try:
        return str(error)
    except Exception as broken:
        return f"its text can't be made: {type(broken).__name__}"
