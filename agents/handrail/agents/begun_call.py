"""A call of an async handler that runs up to its first wait before anybody awaits it."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Coroutine, Generator
from typing import Any


class BegunCall:
    """Runs a coroutine until it waits or ends; await it, in the task that began it, for the rest and for its result.

    It has a context of its own, like the coroutine of a task. `is_over` tells whether it has ended; `answer` is its
    result, None while there is none.
    """

    __slots__ = ("_context", "_coroutine", "_error", "_waits_for", "answer", "is_over")

    def __init__(self, coroutine: Coroutine[Any, Any, object]) -> None:
        self._coroutine = coroutine
        self._context = contextvars.copy_context()
        self._waits_for: object = None
        self._error: BaseException | None = None
        self.answer: object = None
        self.is_over = False
        self._step(coroutine.send, None)

    @property
    def has_answered(self) -> bool:
        """Whether it has ended with an answer, which may be None."""
        return self.is_over and self._error is None

    def __await__(self) -> Generator[object, object, object]:
        while not self.is_over:
            try:
                sent = yield self._waits_for
            except BaseException as error:
                self._step(self._coroutine.throw, error)
            else:
                self._step(self._coroutine.send, sent)
        if self._error is not None:
            raise self._error
        return self.answer

    def _step(self, step: Callable[[Any], object], argument: object) -> None:
        try:
            self._waits_for = self._context.run(step, argument)
        except StopIteration as ended:
            self.answer, self.is_over = ended.value, True
        except BaseException as error:
            # The traceback leaves out this frame, which refers to this object: they would keep each other alive.
            traceback = error.__traceback__
            self._error, self.is_over = error.with_traceback(traceback and traceback.tb_next), True
