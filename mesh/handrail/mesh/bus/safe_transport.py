"""The transport under nats-py's client: it passes on bytes as they arrive, without a task or a queue.

It knows whether it is encrypted and whether the broker reads what is sent, and it leaves no connection behind.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import cast
from urllib.parse import ParseResult

from nats.aio.transport import Transport
from nats.errors import UnexpectedEOF

from handrail.mesh.bus.protocol import BrokenProtocol

_LONGEST_GREETING = 1 << 16
"""Bytes that a broker may send before anybody listens: its INFO, and the answer to CONNECT."""

_CLOSING = 1.0
"""Seconds in which a closed connection may send what is left. A broker that does not read would keep it for minutes."""


class _Stream(asyncio.Protocol):
    """One connection, plain or encrypted."""

    def __init__(self, on_writable: Callable[[], None]) -> None:
        self.transport: asyncio.Transport | None = None
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.greeting = b""
        self.receive: Callable[[bytes], None] | None = None
        self.arrived = asyncio.Event()
        self.unpaused = asyncio.Event()
        self.unpaused.set()
        self._on_writable = on_writable

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's has another base

    def data_received(self, data: bytes) -> None:
        if self.lost.done():
            return
        if self.receive is not None:
            self.pass_on(self.receive, data)
            return
        self.greeting += data
        self.arrived.set()
        if len(self.greeting) > _LONGEST_GREETING:
            self.fail(BrokenProtocol("too much before the answer to our greeting"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_result(exc)
        self.arrived.set()
        self.unpaused.set()

    def pause_writing(self) -> None:
        self.unpaused.clear()

    def resume_writing(self) -> None:
        self.unpaused.set()
        self._on_writable()

    def pass_on(self, receive: Callable[[bytes], None], data: bytes) -> None:
        """Passes bytes to `receive`, whose errors end the connection."""
        try:
            receive(data)
        except Exception as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """Ends the connection at once, because of this error."""
        self.connection_lost(error)
        if self.transport is not None:
            self.transport.abort()


class SafeTransport(Transport):
    """One connection after the other; `encrypted` says whether the present one is.

    `on_writable` is called when the broker reads again, after `writable` was false.
    """

    def __init__(self, on_writable: Callable[[], None]) -> None:
        self.encrypted = False
        self._on_writable = on_writable
        self._stream: _Stream | None = None

    def __bool__(self) -> bool:
        # nats-py replaces a transport that is false, as its own is until it is connected.
        return True

    @property
    def writable(self) -> bool:
        """Whether the connection is up, and the broker reads what is sent."""
        stream = self._stream
        if stream is None or stream.transport is None or stream.lost.done():
            return False
        return stream.unpaused.is_set() and not stream.transport.is_closing()

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connects without TLS, as every connection begins."""
        # nats-py forgets the connection of an attempt that failed.
        self.close()
        self.encrypted, self._stream = False, None
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: _Stream(self._on_writable), uri.hostname or "", uri.port or 4222)
        async with asyncio.timeout(connect_timeout):  # not wait_for: it may forget the connection
            _, self._stream = await connecting

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Encrypts the connection; raises ssl.SSLError if the server's certificate is not valid."""
        plain = self._stream
        assert plain is not None
        assert plain.transport is not None
        # What arrived before the handshake is not from the server of the certificate: the new stream begins empty.
        encrypted = _Stream(self._on_writable)
        host = uri if isinstance(uri, str) else uri.hostname
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(connect_timeout):
                encrypted.transport = await loop.start_tls(
                    plain.transport, encrypted, ssl_context, server_hostname=host
                )
        except BaseException as error:
            plain.fail(error if isinstance(error, Exception) else ConnectionAbortedError())
            raise
        self.encrypted, self._stream = True, encrypted

    async def listen(self, receive: Callable[[bytes], None]) -> None:
        """Passes bytes to `receive` from now on, until the connection is lost: then raises why.

        An error that `receive` raises ends the connection.
        """
        stream = self._stream
        if stream is None:
            raise UnexpectedEOF
        stream.receive, greeting, stream.greeting = receive, stream.greeting, b""
        if greeting:
            stream.pass_on(receive, greeting)
        raise await asyncio.shield(stream.lost) or UnexpectedEOF()

    async def readline(self) -> bytes:
        """The next line, before anybody listens. Raises UnexpectedEOF, and OSError if the connection is lost."""
        stream = self._stream
        while stream is not None and b"\n" not in stream.greeting:
            if stream.lost.done():
                raise stream.lost.result() or UnexpectedEOF()
            stream.arrived.clear()
            await stream.arrived.wait()
        if stream is None:
            raise UnexpectedEOF
        line, _, stream.greeting = stream.greeting.partition(b"\n")
        return line + b"\n"

    async def read(self, buffer_size: int) -> bytes:
        """Never called: bytes go to `listen`."""
        raise NotImplementedError

    def write(self, payload: bytes) -> None:
        """Sends, or keeps to send as soon as the broker reads. On a lost connection it does nothing."""
        stream = self._stream
        if stream is not None and stream.transport is not None and not stream.transport.is_closing():
            stream.transport.write(payload)

    def writelines(self, payload: list[bytes]) -> None:
        """Sends all of these at once."""
        self.write(b"".join(payload))

    async def drain(self) -> None:
        """Waits until the broker has read enough. Raises ConnectionResetError on a lost connection."""
        stream = self._stream
        if stream is not None:
            await stream.unpaused.wait()
        if stream is None or stream.lost.done():
            raise ConnectionResetError("the connection is lost")

    def close(self) -> None:
        """Closes the connection after what was written is sent."""
        if self._stream is not None and self._stream.transport is not None:
            self._stream.transport.close()

    async def wait_closed(self) -> None:
        """Waits until it is closed; after a second, what is left is dropped."""
        stream = self._stream
        if stream is None:
            return
        await asyncio.wait({stream.lost}, timeout=_CLOSING)
        if not stream.lost.done() and stream.transport is not None:
            stream.transport.abort()

    def at_eof(self) -> bool:
        """Whether nothing more will arrive."""
        return self._stream is None or self._stream.lost.done()
