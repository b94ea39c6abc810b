"""Calling a handler: in the event loop or in a thread, again at once after a blip, and its answer as a list."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta

from google.protobuf.message import Message

from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.errors import HandlerFailed, OutcomeUnknown
from handrail.agents.handler import Handler
from handrail.agents.threads import Place, Threads
from handrail.agents.transport import Sent, sent


@dataclass(frozen=True, slots=True)
class QuickRetries:
    """How a handler is called again after a blip, before its attempt counts as failed.

    `on` are the errors that are blips, besides `OutcomeUnknown` and what `handrail.agents.transport` knows of httpx,
    requests and the standard library. The waits double from `first_wait`, each shortened at random by up to a half so
    that handlers that failed together don't come back together.
    """

    retries: int = 2
    first_wait: timedelta = timedelta(milliseconds=100)
    on: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, BlockingIOError, InterruptedError)

    def wait(self, failures: int) -> timedelta:
        """The wait after so many failures, from 1."""
        # Jitter needs no secrecy.
        return self.first_wait * (2.0 ** (failures - 1) * random.uniform(0.5, 1.0))

    def is_blip(self, error: BaseException) -> bool:
        """Whether to call the handler again. It has the same key, so what happened already does not happen twice."""
        return isinstance(error, (OutcomeUnknown, *self.on)) or sent(error) is not None


async def invoke(
    handler: Handler,
    arguments: Mapping[str, object],
    *,
    retries: QuickRetries,
    patience: BrokerRetry,
    threads: Threads,
    place: Place,
) -> list[Message]:
    """Call a handler and return its answer as a list; HandlerFailed with what the handler raises in the end.

    What one call leaves unknown stays unknown, whatever a later one raises: only an answer settles it.
    """
    failures, unknown = 0, False
    while True:
        try:
            return _listed(await _call(handler, arguments, threads, place))
        except HandlerFailed as failed:
            error = failed.raised
            unknown = unknown or isinstance(error, OutcomeUnknown) or sent(error) is Sent.PERHAPS
            failures += 1
            if failures > retries.retries or not retries.is_blip(error):
                raise HandlerFailed(error, outcome_unknown=unknown) from error
            await patience.pause(retries.wait(failures))


async def _call(handler: Handler, arguments: Mapping[str, object], threads: Threads, place: Place) -> object:
    if handler.asynchronous:
        return await _await(handler.function(**arguments))
    context = contextvars.copy_context()

    def call() -> object:
        answer = context.run(handler.function, **arguments)
        # A generator does its work while it is read: that belongs into the thread too.
        return list(answer) if isinstance(answer, Iterator) else answer

    def contained() -> object:
        # A future can't carry every exception: with a StopIteration it would never be done.
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
    raise HandlerFailed(TypeError(f"a handler answers with a message, several, or nothing, not with {answer!r:.200}"))
