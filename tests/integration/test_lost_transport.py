"""A connection that is gone, or whose other end is no broker, holds up nothing and leaves nothing behind."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from urllib.parse import urlparse

import pytest
import uvloop
from nats.errors import UnexpectedEOF

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.bus.protocol import BrokenProtocol
from handrail.mesh.bus.safe_transport import SafeTransport
from tests.support.nats_server import NatsServer
from tests.support.waiting import until


def test_p2_what_is_published_over_a_closed_transport_is_stored_after_the_reconnect(nats_server: NatsServer) -> None:
    """Under uvloop, as workers and coordinators run: its transports raise RuntimeError once they are closed."""

    async def publish_twice() -> list[int]:
        async with await NatsBus.connect(nats_server.settings()) as bus:
            stream = {"name": "S", "subjects": ["s.>"], "storage": "memory"}
            await bus.request_json("$JS.API.STREAM.CREATE.S", stream)
            transport = bus.connection.client._transport
            assert isinstance(transport, SafeTransport)
            assert transport._stream is not None
            assert transport._stream.transport is not None
            transport._stream.transport.abort()
            return [await bus.publish("s.a", b"1"), await bus.publish("s.b", b"2")]

    assert uvloop.run(publish_twice()) == [1, 2]


async def test_what_a_server_says_before_it_closes_is_heard_even_if_nobody_listened_yet() -> None:
    """Such as why it closes."""
    heard: list[bytes] = []
    closed = asyncio.Event()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"INFO {}\r\nPONG\r\n-ERR 'Authentication Expired'\r\n")
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        transport = SafeTransport(lambda: None)
        await transport.connect(urlparse(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"), 0, 5)
        await closed.wait()
        assert [await transport.readline() for _ in range(2)] == [b"INFO {}\r\n", b"PONG\r\n"]
        with pytest.raises(UnexpectedEOF):
            await transport.listen(heard.append)
    assert heard == [b"-ERR 'Authentication Expired'\r\n"]


async def test_a_server_that_floods_us_before_it_is_asked_is_left() -> None:
    left = asyncio.Event()

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(bytes(1 << 20))
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
        left.set()

    async with await asyncio.start_server(flood, "127.0.0.1", 0) as server:
        transport = SafeTransport(lambda: None)
        await transport.connect(urlparse(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"), 0, 5)
        with pytest.raises(BrokenProtocol, match="too much"):
            await transport.readline()
        await left.wait()
        assert not transport.writable


async def test_a_broker_that_breaks_the_protocol_is_left_and_the_log_says_why(caplog: pytest.LogCaptureFixture) -> None:
    connections = 0

    async def broker(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        writer.write(b'INFO {"version": "2.15.1", "max_payload": 1048576}\r\n')
        await reader.readuntil(b"PING\r\n")
        writer.write(b"PONG\r\n")
        await reader.readuntil(b"SUB ")
        writer.write(b"HTTP/1.1 400 Bad Request\r\n")
        with suppress(ConnectionError):
            await reader.read()
        writer.close()

    async with await asyncio.start_server(broker, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with await NatsBus.connect(BusSettings((url,), "ledger")):
            await until(lambda: connections > 1)
    assert "the broker breaks the NATS protocol: an unknown command" in caplog.text
