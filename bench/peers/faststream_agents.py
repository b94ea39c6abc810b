"""`python -m bench.peers.faststream_agents URL AGENT`: an agent of the chain. It runs in the peers' environment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable

import uvloop
from faststream import AckPolicy
from faststream.nats import JStream, NatsBroker, PullSub
from faststream.nats.annotations import NatsMessage
from nats.js.api import ConsumerConfig

from bench.routes import ROUTES, STREAM

_BATCH = 200
_POLL = 5.0


async def run_agent(url: str, agent: str) -> None:
    """Publishes the next event for each one, and acks once it is stored."""
    broker = NatsBroker(url, logger=None)
    stream = JStream(STREAM, declare=False)

    def handler(target: str) -> Callable[[NatsMessage], Awaitable[None]]:
        async def on_event(message: NatsMessage) -> None:
            await broker.publish(message.body, target, stream=STREAM, timeout=30)

        return on_event

    for source, target in ROUTES[agent].items():
        subscriber = broker.subscriber(
            source,
            stream=stream,
            durable=f"{agent}-{source.replace('.', '-')}",
            pull_sub=PullSub(batch_size=_BATCH, timeout=_POLL),
            config=ConsumerConfig(max_ack_pending=20000),
            ack_policy=AckPolicy.NACK_ON_ERROR,
        )
        subscriber(handler(target))
    await broker.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(run_agent(sys.argv[1], sys.argv[2]))
