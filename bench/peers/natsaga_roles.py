"""`python -m bench.peers.natsaga_roles ROLE URL DATABASE`: a process of natsaga. It runs in the peers' environment.

`listener` and `relay` are its own workers. `agents` are three plain consumers. `client` begins sagas (see
`bench.peers.by_lines`): natsaga tells nobody that one ended, so it asks the database.
"""

from __future__ import annotations

import asyncio
import json
import sys
import uuid

import nats
import uvloop
from nats.aio.client import Client
from nats.js.api import StreamConfig
from nats.js.client import JetStreamContext
from nats_outbox.core.models import create_tables
from nats_outbox.publishers.nats_publisher import NatsPublisher
from nats_outbox.relay.polling import PollingRelay
from nats_outbox.settings import OutboxSettings
from natsaga.core.models import Base, SagaState
from natsaga.core.saga import Saga
from natsaga.core.step import Step
from natsaga.listener import SagaListener
from natsaga.orchestrator import SagaOrchestrator
from natsaga.timeout_checker import TimeoutChecker
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from bench.peers import PADDING

_AGENTS = ("detect", "enrich", "notify")
_COMMANDS, _RESPONSES = "SAGA_COMMANDS", "SAGA_RESPONSES"
_FINAL = ("completed", "failed", "compensation_failed")
_RELAY_POLL, _RELAY_BATCH = 0.005, 100
_LOOK = 0.02


class Refund(Saga):
    """Three steps, each with an undo."""

    saga_type = "refund"

    @classmethod
    def steps(cls) -> list[Step]:
        """The steps, in order."""
        return [
            Step(
                name=name,
                action_subject=f"cmd.{name}",
                compensation_subject=f"cmd.undo-{name}",
                timeout_seconds=60,
            )
            for name in _AGENTS
        ]


class Process:
    """What each role needs."""

    def __init__(self, url: str, database: str) -> None:
        self.url, self.database = url, database
        self.engine: AsyncEngine = create_async_engine(database, pool_size=30, max_overflow=20)
        self.sessions = async_sessionmaker(self.engine, expire_on_commit=False)
        self.orchestrator = SagaOrchestrator(self.sessions)
        self.orchestrator.register(Refund)

    async def listener(self) -> None:
        """Takes the agents' answers, and looks for time-outs."""
        listener = await SagaListener.from_nats_client(await nats.connect(self.url), self.orchestrator, _RESPONSES)
        await listener.subscribe_all()
        await TimeoutChecker(self.sessions, self.orchestrator, poll_interval_seconds=5.0).start()
        await listener.run_forever()

    async def relay(self) -> None:
        """Publishes what the orchestrator wrote to its outbox."""
        settings = OutboxSettings(
            database_url=self.database, nats_url=self.url, batch_size=_RELAY_BATCH, polling_interval=_RELAY_POLL
        )
        publisher = await NatsPublisher.from_nats_client(await nats.connect(self.url))
        await PollingRelay(self.sessions, publisher, settings).start()

    async def agents(self) -> None:
        """Serves the commands."""
        client = await nats.connect(self.url)
        stream = client.jetstream(publish_async_max_pending=5000)
        commands = [f"cmd.{undo}{name}" for name in _AGENTS for undo in ("", "undo-")]
        await asyncio.gather(*(_serve(stream, command) for command in commands))

    async def client(self) -> None:
        """Creates streams and tables, then begins sagas."""
        await self._create(await nats.connect(self.url))
        print("ready", flush=True)
        waiting: dict[uuid.UUID, str] = {}
        looking = asyncio.create_task(self._report_ends(waiting))
        beginning: set[asyncio.Task[None]] = set()
        while line := await asyncio.to_thread(sys.stdin.readline):
            _, work, name = line.split()
            saga_id = uuid.uuid4()
            waiting[saga_id] = name
            task = asyncio.create_task(self._begin(saga_id, work, name))
            beginning.add(task)
            task.add_done_callback(beginning.discard)
        looking.cancel()

    async def _create(self, client: Client) -> None:
        stream = client.jetstream()
        subjects = [f"cmd.{undo}{name}" for name in _AGENTS for undo in ("", "undo-")]
        await stream.add_stream(StreamConfig(name=_COMMANDS, subjects=subjects))
        await stream.add_stream(StreamConfig(name=_RESPONSES, subjects=["cmd.*.response.>"]))
        await create_tables(self.engine)
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)

    async def _begin(self, saga_id: uuid.UUID, work: str, name: str) -> None:
        await self.orchestrator.start(Refund, {"work": work, "flow": name, "data": PADDING}, saga_id=saga_id)

    async def _report_ends(self, waiting: dict[uuid.UUID, str]) -> None:
        while True:
            await asyncio.sleep(_LOOK)
            if not waiting:
                continue
            ended = select(SagaState.id).where(SagaState.id.in_(list(waiting)), SagaState.status.in_(_FINAL))
            async with self.sessions() as session:
                for saga_id in (await session.execute(ended)).scalars():
                    print(waiting.pop(saga_id), flush=True)


async def _serve(stream: JetStreamContext, command: str) -> None:
    """Answers each command on its response subject, and acks it once the answer is stored."""
    pulled = await stream.pull_subscribe(command, durable=command.replace(".", "_"), stream=_COMMANDS)
    while True:
        try:
            messages = await pulled.fetch(200, timeout=30)
        except TimeoutError:
            continue
        stored = []
        for message in messages:
            saga = json.loads(message.data)
            fails = command == "cmd.notify" and saga["saga_payload"]["work"] == "compensated"
            failure = {"outcome": "failure", "error": "as planned"}
            answer = failure if fails else {"outcome": "success", "result": {"data": PADDING}}
            subject = f"{command}.response.{saga['saga_id']}.{saga['step_index']}"
            stored.append(await stream.publish_async(subject, json.dumps(answer).encode()))
        await asyncio.gather(*stored)
        for message in messages:
            await message.ack()


if __name__ == "__main__":
    uvloop.run(getattr(Process(sys.argv[2], sys.argv[3]), sys.argv[1])())
