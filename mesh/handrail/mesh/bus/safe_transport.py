"""nats-py's transport, which knows whether it is encrypted, and leaves no connection behind."""

from __future__ import annotations

import ssl
from urllib.parse import ParseResult

from nats.aio.transport import TcpTransport


class SafeTransport(TcpTransport):
    """One connection after the other; `encrypted` says whether the present one is."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.encrypted = False

    def __bool__(self) -> bool:
        # nats-py replaces a transport that is false, as its own is until it is connected.
        return True

    async def connect(self, uri: ParseResult, buffer_size: int, connect_timeout: int) -> None:
        """Connects without TLS, as every connection begins."""
        self.encrypted = False
        # nats-py forgets the connection of an attempt that failed.
        self.close()  # type: ignore[no-untyped-call]
        await super().connect(uri, buffer_size, connect_timeout)

    async def connect_tls(
        self, uri: str | ParseResult, ssl_context: ssl.SSLContext, buffer_size: int, connect_timeout: int
    ) -> None:
        """Encrypts the connection; raises ssl.SSLError if the server's certificate is not valid."""
        await super().connect_tls(uri, ssl_context, buffer_size, connect_timeout)
        # asyncio prints a warning at the end of each connection whose protocol does not know that it is encrypted.
        assert self._io_writer is not None
        self._io_writer._protocol._over_ssl = True  # type: ignore[attr-defined]  # private to asyncio
        self.encrypted = True
