"""One permanent inbox for every reply: acknowledgements, direct reads, answers of the API."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from os import urandom
from typing import Protocol

from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerPermission, HandrailError

_logger = logging.getLogger(__name__)

NO_RESPONDERS = "503"
"""Status of a reply where nobody listens: no such stream or consumer, or a leader is being elected."""


class Waiting(Protocol):
    """Whoever waits for the reply to something sent on `subject`."""

    @property
    def subject(self) -> str:
        """What was sent."""

    def answered(self, message: Message) -> None:
        """A reply came; called for each."""

    def refused(self, error: HandrailError) -> None:
        """No reply will come."""


class ReplyInbox:
    """Who waits for which reply. `subject` is what to subscribe to."""

    def __init__(self, prefix: str) -> None:
        self._tokens = _tokens()
        self._prefix = f"{prefix}.{next(self._tokens)}."
        self._waiting: dict[str, Waiting] = {}

    @property
    def subject(self) -> str:
        """The subject of all replies."""
        return f"{self._prefix}*"

    def expect(self, waiting: Waiting) -> str:
        """A new reply subject whose replies go to `waiting`, until `forget`.

        Nobody can guess it: the broker sends an answer to whatever reply subject a request names, so that another
        agent's request could have its answer sent here.
        """
        reply = self._prefix + next(self._tokens)
        self._waiting[reply] = waiting
        return reply

    def forget(self, reply: str) -> None:
        """Drop later replies to this subject."""
        self._waiting.pop(reply, None)

    def new_prefix(self) -> str:
        """A subject prefix that nothing else uses, for a subscription beside this inbox."""
        return self._prefix + next(self._tokens)

    def take(self, message: Message) -> None:
        """Hand a reply to whoever waits for it."""
        waiting = self._waiting.get(message.subject)
        if waiting is not None:
            waiting.answered(message)

    def refuse(self, reply: str, error: HandrailError) -> None:
        """Tell whoever waits for `reply` that none will come."""
        waiting = self._waiting.pop(reply, None)
        if waiting is not None:
            waiting.refused(error)
        else:
            _logger.error("%s", error)

    def refuse_subject(self, subject: str) -> bool:
        """Tell everybody who sent on `subject` that the broker forbids it; whether there was anybody.

        `subject` is in lower case, as nats-py hands the broker's words on.
        """
        refused = [(reply, waiting) for reply, waiting in self._waiting.items() if waiting.subject.lower() == subject]
        for reply, waiting in refused:
            self.forget(reply)
            waiting.refused(BrokerPermission(waiting.subject))
        return bool(refused)

    def refuse_all(self, error: HandrailError) -> None:
        """Tell everybody that no reply will come."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.refused(error)


def _tokens() -> Iterator[str]:
    """Tokens of 64 random bits, many for one call of the system."""
    while True:
        pool = urandom(4096).hex()
        yield from (pool[at : at + 16] for at in range(0, len(pool), 16))


class Answer:
    """One reply as a future."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def answered(self, message: Message) -> None:
        """Take the reply."""
        if not self.future.done():
            self.future.set_result(message)

    def refused(self, error: HandrailError) -> None:
        """Take the refusal."""
        if not self.future.done():
            self.future.set_exception(error)
