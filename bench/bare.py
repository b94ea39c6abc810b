"""The baseline: the same three workloads on nats-py alone, without contracts, state, time-outs or gates.

`python -m bench.bare URL AGENT` is one agent. Subjects are `work.stage`; bodies are about 200 bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.client import JetStreamContext

STREAM = "CHAIN"
ROUTES = {
    "detect": {
        "happy.start": "happy.detected",
        "compensated.start": "compensated.detected",
        "compensated.unenriched": "compensated.done",
        "approved.start": "approved.detected",
    },
    "enrich": {
        "happy.detected": "happy.enriched",
        "compensated.detected": "compensated.enriched",
        "compensated.failed": "compensated.unenriched",
    },
    "notify": {
        "happy.enriched": "happy.done",
        "compensated.enriched": "compensated.failed",
        "approved.yes": "approved.done",
    },
}
_BATCH = 500
_PADDING = b"x" * 180


class Bare:
    """A stream, three agents in one process each, and a client that starts flows and sees them end."""

    name = "bare"

    def __init__(self, url: str, server: int, park: float) -> None:
        self.on_end: Callable[[str], None] = lambda _: None
        self._url = url
        self._server = server
        self._park = park
        self._names = itertools.count()
        self._agents: list[subprocess.Popen[bytes]] = []

    async def open(self) -> None:
        """Sets up the stream and starts the agents."""
        self._client = await nats.connect(self._url)
        self._stream = self._client.jetstream(publish_async_max_pending=20000)
        subjects = ["happy.*", "compensated.*", "approved.*"]
        await self._stream.add_stream(StreamConfig(name=STREAM, subjects=subjects))
        for agent, routes in ROUTES.items():
            config = ConsumerConfig(
                durable_name=agent, filter_subjects=list(routes), max_ack_pending=20000, ack_policy=AckPolicy.EXPLICIT
            )
            await self._stream.add_consumer(STREAM, config)
        await self._client.subscribe("ends", cb=self._ended)
        done = ConsumerConfig(
            deliver_subject="ends",
            filter_subjects=["happy.done", "compensated.done", "approved.done"],
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.NEW,
        )
        await self._stream.add_consumer(STREAM, done)
        self._agents = [_start_agent(self._url, agent) for agent in ROUTES]

    def begin(self, work: str) -> str:
        """Starts a flow."""
        name = str(next(self._names))
        loop = asyncio.get_running_loop()
        self._publish(f"{work}.start", name)
        if work == "approved":
            loop.call_later(self._park, self._publish, "approved.yes", name)
        return name

    def processes(self) -> Iterable[int]:
        """The processes of the server and the agents."""
        return [self._server, *(agent.pid for agent in self._agents)]

    async def close(self) -> None:
        """Stops the agents."""
        for agent in self._agents:
            agent.terminate()
            agent.wait()
        await self._client.close()

    def _publish(self, subject: str, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._client.publish(subject, name.encode() + b" " + _PADDING))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _ended(self, message: Msg) -> None:
        self.on_end(message.data.split(b" ", 1)[0].decode())


_tasks: set[asyncio.Task[None]] = set()


def _start_agent(url: str, agent: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "bench.bare", url, agent]
    return subprocess.Popen(command, cwd=Path(__file__).parents[1])


async def run_agent(url: str, agent: str) -> None:
    """Consumes messages, publishes the next event and acks once it is stored; in batches, four at a time."""
    client: Client = await nats.connect(url)
    stream: JetStreamContext = client.jetstream(publish_async_max_pending=20000)
    routes = ROUTES[agent]
    pulled = await stream.pull_subscribe_bind(durable=agent, stream=STREAM)
    slots = asyncio.Semaphore(4)

    async def handle(messages: list[Msg]) -> None:
        try:
            stored = [await stream.publish_async(routes[message.subject], message.data) for message in messages]
            await asyncio.gather(*stored)
            for message in messages:
                await message.ack()
        finally:
            slots.release()

    while True:
        try:
            messages = await pulled.fetch(_BATCH, timeout=30)
        except nats.errors.TimeoutError:
            continue
        await slots.acquire()
        task = asyncio.get_running_loop().create_task(handle(messages))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


if __name__ == "__main__":
    uvloop.run(run_agent(sys.argv[1], sys.argv[2]))
