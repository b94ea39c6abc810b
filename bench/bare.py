"""The baseline: the same three workloads on nats-py alone, without contracts, state, time-outs or gates.

`python -m bench.bare URL AGENT` is one agent. Subjects are `work.stage`; bodies are about 200 bytes.
"""

from __future__ import annotations

import asyncio
import itertools
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import nats
import uvloop
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, StreamConfig
from nats.js.client import JetStreamContext

from bench.contender import ROOT
from bench.figures import SERVER
from bench.meter import Processes
from bench.routes import ROUTES, STREAM
from handrail.cli.dev.broker import server_binary
from handrail.cli.dev.processes import Child, free_port, stop, wait_until

_START_SECONDS = 30.0
_GRACE = 5.0
_BATCH = 500
_PADDING = b"x" * 180


class Bare:
    """A server, a stream, three agents in one process each, and a client that starts flows and sees them end. Use it as
    a context, then `open` it.
    """

    def __init__(self, folder: Path, park: float, *, sync_always: bool) -> None:
        self.timings: dict[str, list[float]] = {}
        self._url = f"nats://127.0.0.1:{free_port()}"
        self._server = server(folder, self._url, sync_always=sync_always)
        self._park = park
        self._names = itertools.count()
        self._waiting: dict[str, Callable[[], None]] = {}
        self._agents: dict[str, Child] = {}

    def __enter__(self) -> Bare:
        self._server.start()
        port = int(self._url.rpartition(":")[2])
        wait_until(lambda: answers(port, b"INFO"), self._server, seconds=_START_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        stop([*self._agents.values(), self._server], grace=_GRACE)

    async def open(self) -> None:
        """Sets up the stream and starts the agents."""
        self._client = await nats.connect(self._url)
        self._stream = self._client.jetstream(publish_async_max_pending=20000)
        subjects = ["happy.*", "compensated.*", "approved.*"]
        await self._stream.add_stream(StreamConfig(name=STREAM, subjects=subjects))
        for config in self.durables():
            await self._stream.add_consumer(STREAM, config)
        await self._client.subscribe("ends", cb=self._ended)
        done = ConsumerConfig(
            deliver_subject="ends",
            filter_subjects=["happy.done", "compensated.done", "approved.done"],
            ack_policy=AckPolicy.NONE,
            deliver_policy=DeliverPolicy.NEW,
        )
        await self._stream.add_consumer(STREAM, done)
        for agent in ROUTES:
            command = self.agent_command(agent)
            self._agents[agent] = Child(
                agent, [*command, self._url, agent], log=self._server.log.with_name(f"{agent}.log"), folder=ROOT
            )
            self._agents[agent].start()

    def durables(self) -> Iterable[ConsumerConfig]:
        """The durables of the agents."""
        for agent, routes in ROUTES.items():
            yield ConsumerConfig(
                durable_name=agent, filter_subjects=list(routes), max_ack_pending=20000, ack_policy=AckPolicy.EXPLICIT
            )

    def agent_command(self, agent: str) -> Sequence[str]:
        """The command that runs an agent; the server's URL and the agent's name are added."""
        return (sys.executable, "-m", "bench.bare")

    def begin(self, work: str, on_end: Callable[[], None]) -> None:
        """Starts a flow."""
        name = str(next(self._names))
        self._waiting[name] = on_end
        self._publish(f"{work}.start", name)
        if work == "approved":
            asyncio.get_running_loop().call_later(self._park, self._publish, "approved.yes", name)

    def processes(self) -> Processes:
        """The server and the agents."""
        return {SERVER: [self._server.pid], **{name: [child.pid] for name, child in self._agents.items()}}

    async def settled(self) -> None:
        """An agent acknowledges before the client hears of the end, or a moment later."""

    async def close(self) -> None:
        """Disconnects."""
        await self._client.close()

    def _publish(self, subject: str, name: str) -> None:
        task = asyncio.get_running_loop().create_task(self._client.publish(subject, name.encode() + b" " + _PADDING))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)

    async def _ended(self, message: Msg) -> None:
        on_end = self._waiting.pop(message.data.split(b" ", 1)[0].decode(), None)
        if on_end is not None:
            on_end()


_tasks: set[asyncio.Task[None]] = set()


def server(folder: Path, url: str, *, sync_always: bool) -> Child:
    """A nats-server at this URL, with JetStream in the folder and without accounts."""
    sync = ", sync_interval: always" if sync_always else ""
    config = folder / "bare.conf"
    config.write_text(
        f'listen: "{url.removeprefix("nats://")}"\njetstream {{ store_dir: "{folder / "bare"}"{sync} }}\n'
    )
    return Child("nats-server", [str(server_binary()), "-c", str(config)], log=folder / "nats-server.log")


def answers(port: int, greeting: bytes = b"") -> bool:
    """Whether something listens on this port of the loopback address, and begins with this greeting."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
        return probe.recv(len(greeting)) == greeting if greeting else True
    return False


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
        except TimeoutError:  # nats-py raises two kinds; this is their base
            continue
        await slots.acquire()
        task = asyncio.get_running_loop().create_task(handle(messages))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


if __name__ == "__main__":
    uvloop.run(run_agent(sys.argv[1], sys.argv[2]))
