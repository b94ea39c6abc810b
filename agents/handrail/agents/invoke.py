"""Calls a handler, in the event loop or in a thread, retries after a transient error, and lists its answer."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.agents.begun_call import BegunCall
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.errors import HandlerFailed, OutcomeUnknown
from handrail.agents.handler import Handler
from handrail.agents.threads import Place, Threads
from handrail.agents.transport import Sent, sent


@dataclass(frozen=True, slots=True)
class QuickRetries:
    """How a handler is called again after a transient error, before its attempt counts as failed.

    `on` are the transient errors, besides `OutcomeUnknown` and those of httpx, requests and the standard library that
    `handrail.agents.transport` knows. The waits double from `first_wait`; each is shortened at random by up to a half,
    so that handlers that failed together don't retry together.
    """

    retries: int = 2
    first_wait: timedelta = timedelta(milliseconds=100)
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, BlockingIOError, InterruptedError)

    def wait(self, failures: int) -> timedelta:
        """Returns the wait after this many failures, from 1."""
        # Jitter needs no cryptographic randomness.
        return self.first_wait * (2.0 ** (failures - 1) * random.uniform(0.5, 1.0))

    def is_blip(self, error: BaseException) -> bool:
        """Tells whether to call the handler again. The same key keeps an effect from happening twice."""
        return isinstance(error, (OutcomeUnknown, *self.on)) or sent(error) is not None


async def invoke(
    handler: Handler,
    arguments: Mapping[str, object],
    *,
    retries: QuickRetries,
    patience: BrokerRetry,
    threads: Threads,
    place: Place | None = None,
    begun: BegunCall | None = None,
) -> list[Message]:
    """Calls a handler and returns its answer as a list; raises HandlerFailed with its final error.

    A plain handler needs a `place`. `begun` is the first call of an async one, if it was made already.
    An outcome that one call leaves unknown stays unknown, even if a later call raises: only an answer settles it.
    """
    failures, unknown = 0, False
    while True:
        first, begun = begun, None
        try:
            return _listed(await (_call(handler, arguments, threads, place) if first is None else _await(first)))
        except HandlerFailed as failed:
            error = failed.raised
            unknown = unknown or isinstance(error, OutcomeUnknown) or sent(error) is Sent.PERHAPS
            failures += 1
            if failures > retries.retries or not retries.is_blip(error):
                raise HandlerFailed(error, outcome_unknown=unknown) from error
            await patience.pause(retries.wait(failures))


async def _call(handler: Handler, arguments: Mapping[str, object], threads: Threads, place: Place | None) -> object:
    if handler.asynchronous:
        return await _await(handler.function(**arguments))
    assert place is not None
    context = contextvars.copy_context()

    def call() -> object:
        answer = context.run(handler.function, **arguments)
        # A generator works while it is consumed: that belongs into the thread, too.
        return list(answer) if isinstance(answer, Iterator) else answer

    def contained() -> object:
        # A future can't carry every exception: with a StopIteration it would never complete.
        try:
            return call()
        except BaseException as error:
            return _Raised(error)

    answer = await threads.run(contained, place)
    if isinstance(answer, _Raised):
        raise HandlerFailed(answer.error) from answer.error
    return answer


async def _await(running: object) -> object:
    assert isinstance(running, Awaitable)
    try:
        return await running
    except asyncio.CancelledError as cancelled:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise  # the worker stops, or the attempt is over
        raise HandlerFailed(RuntimeError("the handler was cancelled from within")) from cancelled
    except BaseException as error:
        raise HandlerFailed(error) from error


@dataclass(frozen=True, slots=True)
class _Raised:
    error: BaseException


def _listed(answer: object) -> list[Message]:
    if answer is None:
        return []
    if isinstance(answer, Message):
        return [answer]
    if isinstance(answer, Iterable) and not isinstance(answer, str | bytes):
        listed = list(answer)
        if all(isinstance(each, Message) for each in listed):
            return listed
    raise HandlerFailed(TypeError(f"a handler must answer with a message, several, or nothing, not {answer!r:.200}"))
