"""Whoever answers in a broker's place: a TCP server that offers no TLS and keeps what it is sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_INFO = {
    "server_id": "FAKE",
    "server_name": "fake",
    "version": "2.15.1",
    "proto": 1,
    "headers": True,
    "auth_required": True,
    "max_payload": 1 << 20,
}


class FakeBroker:
    """What it saw. One that is `mute` accepts connections and says nothing."""

    def __init__(self, *, mute: bool) -> None:
        self.port = 0
        self.connections = 0
        self.received = b""
        self._mute = mute
        self._writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one connection until the client closes it."""
        self.connections += 1
        self._writers.append(writer)
        if not self._mute:
            writer.write(b"INFO " + json.dumps(_INFO).encode() + b"\r\n")
        try:
            while data := await reader.read(1 << 16):
                self.received += data
                if b"PING\r\n" in data:
                    writer.write(b"PONG\r\n")
        except ConnectionError:
            pass
        finally:
            writer.close()

    def close(self) -> None:
        """Closes every connection."""
        for writer in self._writers:
            writer.close()


@asynccontextmanager
async def fake_broker(port: int = 0, *, host: str = "127.0.0.1", mute: bool = False) -> AsyncIterator[FakeBroker]:
    """A fake broker on this port for as long as the block runs; 0 takes a free one."""
    fake = FakeBroker(mute=mute)
    server = await asyncio.start_server(fake.serve, host, port)
    fake.port = server.sockets[0].getsockname()[1]
    try:
        yield fake
    finally:
        server.close()
        fake.close()
        await asyncio.sleep(0)
