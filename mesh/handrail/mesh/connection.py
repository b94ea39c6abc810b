"""One connection to the broker: nats-py's client, and around it what every exchange over JetStream needs.

- Sending never waits: messages go to an outbox, one task writes it out. While the broker is away the outbox is kept;
  whoever would send the same again later asks `connected` first.
- One permanent inbox takes every reply (acknowledgements, direct reads, API answers); a dictionary finds who waits.
- A publish that the broker refuses for want of permission is told to whoever waits for its reply, at once. The
  protocol itself says nothing to the publisher: the refusal arrives on the side, with nothing but the subject.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Protocol

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from handrail.mesh.errors import BrokerPermission, BrokerUnavailable, HandrailError, TooLarge

_logger = logging.getLogger(__name__)

_REFUSED = re.compile(r'permissions violation for (publish|subscription) to "(?P<subject>[^"]*)"')
_SHUT_OUT = ("authorization violation", "authentication")

NO_RESPONDERS = "503"
"""Status of a reply where nobody listens: no such stream or consumer, or a leader is being elected."""


@dataclass(frozen=True, slots=True)
class BusSettings:
    """Where the broker is and who connects.

    `name` is the agent's name, or `coordinator`, `viewer`, …; it shows in the broker's monitoring and, unless
    `inbox_prefix` says otherwise, gives the inbox that the broker's permissions reserve for this user. `user` and
    `password`, or a file with an nkey seed. `tls_ca` switches TLS on; `tls_cert` and `tls_key` are a client
    certificate. `connect_timeout` bounds the first connection; later ones are tried for ever.
    """

    servers: tuple[str, ...]
    name: str
    user: str = ""
    password: str = ""
    nkey_seed_file: Path | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    inbox_prefix: str = ""
    connect_timeout: timedelta = timedelta(seconds=10)

    @property
    def inbox(self) -> str:
        """The prefix of every inbox of this user."""
        return self.inbox_prefix or f"_INBOX_{self.name}"


class Waiting(Protocol):
    """Whoever waits for the reply to something sent on `subject`."""

    @property
    def subject(self) -> str:
        """What was sent."""

    def answered(self, message: Msg) -> None:
        """A reply came; called for each."""

    def refused(self, error: HandrailError) -> None:
        """No reply will come."""


_Outgoing = tuple[str, bytes, str, dict[str, str] | None]


class Connection:
    """See the module. `open` connects; after `close`, or after the broker shut us out, `closed` is set."""

    def __init__(self, settings: BusSettings) -> None:
        self.settings = settings
        self.client = Client()
        self.closed = asyncio.Event()
        self.on_reconnected: list[Callable[[], None]] = []
        self._outbox: list[_Outgoing] = []
        self._unsent = asyncio.Event()
        self._connected = asyncio.Event()
        self._waiting: dict[str, Waiting] = {}
        self._tokens = count(1)
        self._inbox = f"{settings.inbox}.{token_hex(8)}."
        self._last_error = ""
        self._shut_out = asyncio.Event()
        self._closing = False
        self._writer: asyncio.Task[None] | None = None
        self._drained = asyncio.Event()
        self._drained.set()

    @classmethod
    async def open(cls, settings: BusSettings) -> Connection:
        """Connect; BrokerUnavailable or BrokerPermission says which servers were tried and what they answered."""
        self = cls(settings)
        connecting = asyncio.create_task(self._connect())
        shut_out = asyncio.create_task(self._shut_out.wait())
        try:
            timeout = settings.connect_timeout.total_seconds()
            await asyncio.wait({connecting, shut_out}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done():
                connecting.result()
                return self
            raise self._not_connected()
        finally:
            shut_out.cancel()
            if not connecting.done() or connecting.exception() is not None:
                connecting.cancel()
                with suppress(asyncio.CancelledError, Exception):
                    await connecting
                await self.client.close()

    async def close(self) -> None:
        """Send what is left, then close. Whoever still waits is told so."""
        self._closing = True
        if not self.closed.is_set() and self.client.is_connected:
            with suppress(nats.errors.Error, TimeoutError, OSError):
                await self.flush(timedelta(seconds=2))
        await self.client.close()
        await self._end()

    @property
    def connected(self) -> bool:
        """Whether the broker is there at the moment."""
        return self._connected.is_set()

    async def ready(self) -> None:
        """Wait until the broker is there."""
        if self.closed.is_set():
            raise BrokerUnavailable(self.why_not_connected)
        await self._connected.wait()

    @property
    def why_not_connected(self) -> str:
        """What to tell whoever finds the broker away."""
        state = "closed" if self.closed.is_set() else "down"
        return f"the connection to {', '.join(self.settings.servers)} is {state} ({self._last_error or 'no error yet'})"

    @property
    def max_payload(self) -> int:
        """The largest body that the broker takes, in bytes."""
        return self.client.max_payload

    @property
    def server_version(self) -> str:
        """The version of the server that we are connected to: `2.15.1`."""
        version = self.client.connected_server_version
        return f"{version.major}.{version.minor}.{version.patch}"

    def send(self, subject: str, body: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None) -> None:
        """Put a message into the outbox. What goes wrong later is told to whoever waits for `reply`, or logged."""
        self._outbox.append((subject, body, reply, dict(headers) if headers else None))
        if self._drained.is_set():
            self._drained.clear()
            self._unsent.set()

    def expect(self, waiting: Waiting) -> str:
        """A new reply subject whose replies go to `waiting`, until `forget`."""
        reply = self._inbox + str(next(self._tokens))
        self._waiting[reply] = waiting
        return reply

    def forget(self, reply: str) -> None:
        """Drop later replies to this subject."""
        self._waiting.pop(reply, None)

    async def request(self, subject: str, body: bytes, *, timeout: timedelta) -> Msg:
        """Send and await one reply; the raw reply may have a status. BrokerUnavailable when none comes in time."""
        answer = _Answer(subject)
        reply = self.expect(answer)
        try:
            async with asyncio.timeout(timeout.total_seconds()):
                await self.ready()
                self.send(subject, body, reply=reply)
                return await answer.future
        except TimeoutError:
            why = "" if self.connected else f": {self.why_not_connected}"
            raise BrokerUnavailable(f"no answer to {subject} within {timeout.total_seconds():g} s{why}") from None
        finally:
            self.forget(reply)

    async def subscribe(self, subject: str, on_message: Callable[[Msg], None]) -> Subscription:
        """A core subscription whose messages go to a plain function, one after the other."""

        async def deliver(message: Msg) -> None:
            on_message(message)

        try:
            return await self.client.subscribe(subject, cb=deliver)
        except nats.errors.Error as error:
            raise BrokerUnavailable(f"can't subscribe to {subject}: {error}") from error

    async def flush(self, timeout: timedelta) -> None:
        """Wait until everything sent so far has reached the broker."""
        async with asyncio.timeout(timeout.total_seconds()):
            await self._drained.wait()
            await self.client.flush()

    def new_inbox(self) -> str:
        """A subject prefix within this user's inbox that nothing else uses."""
        return f"{self._inbox}{next(self._tokens)}"

    async def _connect(self) -> None:
        settings = self.settings
        await self.client.connect(
            list(settings.servers),
            name=settings.name,
            user=settings.user or None,
            password=settings.password or None,
            nkeys_seed=str(settings.nkey_seed_file) if settings.nkey_seed_file else None,
            tls=_tls(settings),
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
        await self.client.subscribe(f"{self._inbox}*", cb=self._on_reply)
        self._connected.set()
        self._writer = asyncio.create_task(self._write(), name=f"bus writer of {settings.name}")

    def _not_connected(self) -> HandrailError:
        servers = ", ".join(self.settings.servers)
        if self._shut_out.is_set():
            return BrokerPermission(f"user «{self.settings.user or self.settings.name}» at {servers}", self._last_error)
        waited = self.settings.connect_timeout.total_seconds()
        return BrokerUnavailable(f"can't connect to {servers} within {waited:g} s: {self._last_error or 'no answer'}")

    async def _write(self) -> None:
        while True:
            await self._unsent.wait()
            self._unsent.clear()
            while self._outbox:
                batch, self._outbox = self._outbox, []
                await self._write_batch(batch)
            self._drained.set()

    async def _write_batch(self, batch: list[_Outgoing]) -> None:
        for position, (subject, body, reply, headers) in enumerate(batch):
            try:
                await self._connected.wait()
                await self.client.publish(subject, body, reply, headers)
            except nats.errors.OutboundBufferLimitError:
                # The connection went and nats-py's own buffer is full: keep the rest until it is back.
                self._outbox[:0] = batch[position:]
                self._connected.clear()
                return
            except nats.errors.MaxPayloadError:
                self._refuse(reply, TooLarge(subject, len(body), self.max_payload))
            except nats.errors.Error as error:
                self._refuse(reply, BrokerUnavailable(f"can't send on {subject}: {error}"))

    async def _on_reply(self, message: Msg) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting is not None:
            waiting.answered(message)

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        refused = _REFUSED.search(text)
        if refused:
            self._refuse_subject(refused["subject"], text)
            return
        if not self._connected.is_set():
            if any(phrase in text.lower() for phrase in _SHUT_OUT):
                self._shut_out.set()
            log = _logger.debug if text == self._last_error else _logger.info
        else:
            log = _logger.warning
        self._last_error = text
        log("bus of %s: %s", self.settings.name, text, exc_info=None if _expected(error) else error)

    def _refuse_subject(self, subject: str, text: str) -> None:
        # nats-py hands the broker's text on in lower case.
        waiting = [(reply, each) for reply, each in self._waiting.items() if each.subject.lower() == subject]
        for reply, each in waiting:
            self.forget(reply)
            each.refused(BrokerPermission(each.subject))
        if not waiting:
            _logger.error("bus of %s: %s", self.settings.name, text)

    def _refuse(self, reply: str, error: HandrailError) -> None:
        waiting = self._waiting.pop(reply, None)
        if waiting is not None:
            waiting.refused(error)
        else:
            _logger.error("bus of %s: %s", self.settings.name, error)

    async def _on_disconnected(self) -> None:
        self._connected.clear()

    async def _on_reconnected(self) -> None:
        self._connected.set()
        _logger.info("bus of %s: connected again", self.settings.name)
        for callback in self.on_reconnected:
            callback()

    async def _end(self) -> None:
        if self.closed.is_set():
            return
        self.closed.set()
        self._connected.clear()
        if self._writer is not None:
            self._writer.cancel()
        if self._closing:
            self._last_error = "by us"
        else:
            # nats-py gives up for good where the broker refuses who we are, and tells it to nobody.
            self._last_error = str(self.client.last_error or "by the broker")
            _logger.error("bus of %s: shut out: %s", self.settings.name, self._last_error)
        waiting, self._waiting = self._waiting, {}
        for each in waiting.values():
            each.refused(BrokerUnavailable(self.why_not_connected))


class _Answer:
    """One reply as a future."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()

    def answered(self, message: Msg) -> None:
        if not self.future.done():
            self.future.set_result(message)

    def refused(self, error: HandrailError) -> None:
        if not self.future.done():
            self.future.set_exception(error)


def status(message: Msg) -> str:
    """The status of a reply that carries one, such as `503`; empty for a plain one."""
    return message.headers.get("Status", "") if message.headers else ""


def _expected(error: Exception) -> bool:
    return isinstance(error, nats.errors.Error | OSError | TimeoutError)


def _tls(settings: BusSettings) -> ssl.SSLContext | None:
    if settings.tls_ca is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.tls_ca))
    if settings.tls_cert is not None:
        context.load_cert_chain(str(settings.tls_cert), str(settings.tls_key) if settings.tls_key else None)
    return context
