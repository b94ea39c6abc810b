"""A connection that is gone before anybody noticed holds up nothing that is published next."""

from __future__ import annotations

import uvloop

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.safe_transport import SafeTransport
from tests.support.nats_server import NatsServer


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
