"""One permanent inbox for all replies: acknowledgements, direct reads, answers of the API."""

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
"""The status "no responders": no such stream or consumer, or a leader is being elected."""


class Waiting(Protocol):
    """A caller that waits for the reply to a message."""

    @property
    def subject(self) -> str:
        """The subject that the message was sent on."""

    def answered(self, message: Message) -> None:
        """Receives a reply; called for each."""

    def refused(self, error: HandrailError) -> None:
        """No reply will come."""


class ReplyInbox:
    """Maps reply subjects to the callers that wait. The connection subscribes to `subject`."""

    def __init__(self, prefix: str) -> None:
        self._tokens = _tokens()
        self._prefix = f"{prefix}.{next(self._tokens)}."
        self._waiting: dict[str, Waiting] = {}

    @property
    def subject(self) -> str:
        """The wildcard subject of all replies."""
        return f"{self._prefix}*"

    def expect(self, waiting: Waiting) -> str:
        """Makes a new reply subject. Its replies go to `waiting`, until `forget`.

        The subject can't be guessed: the broker sends an answer to any reply subject that a request names, so another
        agent could otherwise direct the answer to its own request here.
        """
        reply = self._prefix + next(self._tokens)
        self._waiting[reply] = waiting
        return reply

    def forget(self, reply: str) -> None:
        """Drops later replies to this subject."""
        self._waiting.pop(reply, None)

    def new_prefix(self) -> str:
        """A subject prefix that nothing else uses, for a subscription beside this inbox."""
        return self._prefix + next(self._tokens)

    def take(self, message: Message) -> None:
        """Passes a reply to the caller that waits for it."""
        waiting = self._waiting.get(message.subject)
        if waiting is not None:
            waiting.answered(message)

    def refuse(self, reply: str, error: HandrailError) -> None:
        """Tells the caller that waits for `reply` that none will come."""
        waiting = self._waiting.pop(reply, None)
        if waiting is not None:
            waiting.refused(error)
        else:
            _logger.error("%s", error)

    def refuse_subject(self, subject: str) -> bool:
        """Tells all callers that sent on `subject` that the broker forbids it. Returns whether there were any.

        `subject` is in lower case, as nats-py reports it.
        """
        refused = [(reply, waiting) for reply, waiting in self._waiting.items() if waiting.subject.lower() == subject]
        for reply, waiting in refused:
            self.forget(reply)
            waiting.refused(BrokerPermission(waiting.subject))
        return bool(refused)

    def refuse_all(self, error: HandrailError) -> None:
        """Tells all callers that no reply will come."""
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.refused(error)


def _tokens() -> Iterator[str]:
    """Tokens of 64 random bits; one system call yields many."""
    while True:
        pool = urandom(4096).hex()
        yield from (pool[at : at + 16] for at in range(0, len(pool), 16))


class Answer:
    """One reply as a future."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def answered(self, message: Message) -> None:
        """Sets the reply as the result."""
        if not self.future.done():
            self.future.set_result(message)

    def refused(self, error: HandrailError) -> None:
        """Sets the refusal as the exception."""
        if not self.future.done():
            self.future.set_exception(error)
