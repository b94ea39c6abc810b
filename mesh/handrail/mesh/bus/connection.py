"""One connection to the broker: nats-py's client, with the additions that all JetStream requests need.

- Sending never waits (see `send_buffer`). Callers that resend later should check `connected` first.
- One permanent inbox receives all replies (see `reply_inbox`).
- If the broker refuses a publish for lack of permission, whoever waits for the reply learns it at once. The protocol
  does not answer the publisher: the refusal arrives separately, with only the subject.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta

import nats.errors
from nats.aio.subscription import Subscription

from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.client import TOO_LARGE, Client
from handrail.mesh.bus.protocol import Message
from handrail.mesh.bus.reply_inbox import Answer, ReplyInbox
from handrail.mesh.bus.send_buffer import SendBuffer
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError
from handrail.mesh.waiting import cancelled

__all__ = ["BusSettings", "Connection"]

_logger = logging.getLogger(__name__)

_REFUSED = re.compile(r'permissions violation for (?P<what>publish|subscription) to "(?P<subject>[^"]*)"')
_NOT_LET_IN = "authorization violation"
_SHUT_OUT = (_NOT_LET_IN, "authentication")
_FLUSH = timedelta(seconds=10)


class Connection:
    """A connection, made with `open`. `closed` is set after `close`, or after the broker refused us for good."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.client = Client(needs_tls=settings.needs_tls)
        self.inbox = ReplyInbox(settings.inbox)
        self.closed = asyncio.Event()
        self.on_reconnected: list[Callable[[], None]] = []
        self.called_too_large = False
        """The broker closed the connection because a message was too large; the message is not yet identified."""
        self._connected = asyncio.Event()
        self.outbox = SendBuffer(self.client, self.inbox.refuse)
        self._opened = False
        self._refused_subscriptions: set[str] = set()
        self._shut_out = asyncio.Event()
        self._closing = False
        self._last_error = ""
        self._nkey_seed: str | None = None
        self._refusals = 0
        self._leaving: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: BusSettings) -> Connection:
        """Connects. Raises BrokerUnavailable or BrokerPermission, which name the servers and their last answer."""
        self = cls(settings)
        tls, self._nkey_seed = settings.credentials()
        connecting = asyncio.create_task(self._connect(tls))
        shut_out = asyncio.create_task(self._shut_out.wait())
        try:
            timeout = settings.connect_timeout.total_seconds()
            await asyncio.wait({connecting, shut_out}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and connecting.exception() is None:
                return self
            raise self._not_connected(connecting.exception() if connecting.done() else None)
        finally:
            shut_out.cancel()
            if not self._opened:
                await self._give_up(connecting)

    async def close(self) -> None:
        """Sends pending messages, then closes. Callers that still wait for a reply get BrokerUnavailable."""
        self._closing = True
        if self.connected:
            with suppress(nats.errors.Error, TimeoutError, OSError):
                await self.flush(timedelta(seconds=2))
        await self.client.close()
        await self._end()

    @property
    def connected(self) -> bool:
        """Whether the connection is up at the moment."""
        return self._connected.is_set()

    @property
    def why_not_connected(self) -> str:
        """Why the connection is down, as text for an error."""
        state = "closed" if self.closed.is_set() else "down"
        return f"the connection to {', '.join(self.settings.servers)} is {state} ({self._last_error or 'no error yet'})"

    @property
    def max_payload(self) -> int:
        """The largest message that the broker accepts, in bytes, headers included."""
        return self.client.max_payload

    @property
    def server_version(self) -> str:
        """The version of the connected server: `2.15.1`."""
        version = self.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    async def ready(self) -> None:
        """Waits until the connection is up. Raises BrokerUnavailable if it is closed for good."""
        if self.closed.is_set():
            raise BrokerUnavailable(self.why_not_connected)
        await self._connected.wait()

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Sends without waiting. Later errors go to whoever waits for `reply`, or to the log."""
        self.outbox.put(subject, body, reply, headers)

    async def request(self, subject: str, body: bytes, *, timeout: timedelta) -> Message:
        """Sends and awaits one raw reply, which may carry a status. Raises BrokerUnavailable after `timeout`."""
        answer = Answer(subject)
        reply = self.inbox.expect(answer)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self.ready()
                self.send(subject, body, reply=reply)
                return await answer.future
        except TimeoutError:
            why = "" if self.connected else f": {self.why_not_connected}"
            raise BrokerUnavailable(f"no answer to {subject} within {timeout.total_seconds():g} s{why}") from None
        finally:
            self.inbox.forget(reply)

    async def subscribe(self, subject: str, on_message: Callable[[Message], None]) -> Subscription:
        """Makes a core subscription. It passes its messages to a plain function, one after the other.

        Raises BrokerPermission, and BrokerUnavailable if the broker does not confirm it in time.
        """

        try:
            subscription = await self.client.listen(subject, on_message)
            # The broker answers in order: a refusal arrives before the answer to this flush.
            await self.flush(_FLUSH)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerUnavailable(f"can't subscribe to {subject}: {error!r}") from error
        if subject.lower() in self._refused_subscriptions:
            self._refused_subscriptions.discard(subject.lower())
            await subscription.unsubscribe()
            raise BrokerPermission(subject)
        return subscription

    async def flush(self, timeout: timedelta) -> None:
        """Waits until the broker has received everything sent so far. Raises TimeoutError."""
        async with asyncio.timeout(timeout.total_seconds()):
            await self.outbox.drained()
            # nats-py's PING may overtake data in its own write buffer. That data is written by the time the first
            # answer arrives, so a second PING comes after it.
            await self.client.flush()
            await self.client.flush()

    async def _connect(self, tls: ssl.SSLContext | None) -> None:
        settings = self.settings
        await self.client.connect(
            list(settings.servers),
            name=settings.name,
            user=settings.user or None,
            password=settings.password or None,
            nkeys_seed_str=self._nkey_seed,
            tls=tls,
            inbox_prefix=settings.inbox,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._end,
            connect_timeout=2,
            ping_interval=5,
            max_outstanding_pings=2,
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds; a float works and the stub says int
        )
        await self.client.listen(self.inbox.subject, self.inbox.take)
        self._connected.set()
        self._opened = True

    async def _give_up(self, connecting: asyncio.Task[None]) -> None:
        self._closing = True
        # nats-py may lose a cancellation that comes between two attempts.
        await cancelled(connecting)
        if not connecting.cancelled():
            connecting.exception()  # the caller has been told already
        with suppress(AssertionError):  # nats-py's way to say that it never began
            await self.client.close()

    def _not_connected(self, error: BaseException | None) -> HandrailError:
        servers = ", ".join(self.settings.servers)
        if error is not None:
            return BrokerUnavailable(f"can't connect to {servers}: {error}")
        if self._shut_out.is_set():
            return self.settings.wrong_credentials(self._nkey_seed, self._last_error)
        waited = self.settings.connect_timeout.total_seconds()
        return BrokerUnavailable(f"can't connect to {servers} within {waited:g} s: {self._last_error or 'no answer'}")

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        self.called_too_large = self.called_too_large or TOO_LARGE in text
        refused = _REFUSED.search(text)
        if refused is not None:
            self._on_refused(refused["what"], refused["subject"], text)
            return
        if self.connected:
            log = _logger.warning
        else:
            log = _logger.debug if text == self._last_error else _logger.info
            if any(phrase in text.lower() for phrase in _SHUT_OUT):
                self._shut_out.set()
            self._count_refusal(text)
        self._last_error = text
        expected = isinstance(error, nats.errors.Error | OSError | TimeoutError)
        log("bus of %s: %s", self.settings.name, text, exc_info=None if expected else error)

    def _count_refusal(self, text: str) -> None:
        """Gives up once every server has refused our credentials twice; nats-py would try for ever."""
        self._refusals += _NOT_LET_IN in text.lower()
        if self._opened and self._leaving is None and self._refusals >= 2 * len(self.client.servers):
            self._leaving = asyncio.create_task(self.client.close())

    def _on_refused(self, what: str, subject: str, text: str) -> None:
        if what == "subscription":
            self._refused_subscriptions.add(subject)
        elif not self.inbox.refuse_subject(subject):
            _logger.error("bus of %s: %s", self.settings.name, text)

    async def _on_disconnected(self) -> None:
        self._connected.clear()
        self.outbox.drop_questions()

    async def _on_reconnected(self) -> None:
        self._connected.set()
        self.outbox.write()
        self._refusals = 0
        _logger.info("bus of %s: connected again", self.settings.name)
        for callback in self.on_reconnected:
            callback()

    async def _end(self) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        self._connected.clear()
        if self._closing:
            self._last_error = "by us"
        else:
            # The broker refused our credentials: nats-py or we gave up for good, and nats-py does not report it.
            self._last_error = str(self.client.last_error or "by the broker")
            _logger.error("bus of %s: shut out: %s", self.settings.name, self._last_error)
        self.inbox.refuse_all(BrokerUnavailable(self.why_not_connected))
