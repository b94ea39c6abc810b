"""P2: the coordinator exits hard after its n-th broker call, for every n of every operation; the flow ends the same."""

from __future__ import annotations

import asyncio
import os
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import grpc
import grpc.aio
import pytest

from handrail.coordinator.api.dev_tokens import KeyFiles, ensure_keys, mint
from handrail.mesh.bus import NatsBus
from handrail.mesh.contracts import Contracts
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.streams import durables, ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import FlowStatus
from payments.v1 import payments_pb2 as payments
from tests.chaos.actors import Agents
from tests.chaos.crashing import CRASHED, CoordinatorProcess
from tests.chaos.stories import STORIES, Act, People, Story
from tests.support import waiting
from tests.support.flows import stored
from tests.support.mesh import COORDINATORS, Mesh
from tests.support.nats_server import NatsServer, running_server

MESSAGES = (
    payments.ChargebackReceived,
    payments.ChargebackEnriched,
    payments.SmallRefundGranted,
    payments.LargeRefundGranted,
    payments.RefundPaid,
    payments.RefundReversed,
    payments.CustomerNotified,
)

PARTS = 3
"""`make test` runs one part per day, CI all of them; `CRASH_PARTS=0,1,2` selects parts."""

RECORDINGS = 3
"""Runs without a crash that count the calls of an operation."""

TRIES = 5
"""How often a crash point is tried again if a run did not reach it."""

REACHED = 0.8
"""The share of the recorded calls that later runs have to reach: on a busy machine the recorded run makes extra
calls."""

PATIENCE = 2 * waiting.PATIENCE
"""Seconds after which a flow counts as stuck."""

_RECORDED_BEFORE_THE_CRASH = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.NOT_FOUND,
)


@dataclass(frozen=True)
class End:
    """The parts of a flow's end that a crash must not change."""

    status: str
    facts: tuple[str, ...]
    effects: tuple[str, ...]
    runs: tuple[str, ...]
    had: tuple[int, ...]


@dataclass
class Stage:
    """A server with the story's template, and everything that outlives a coordinator."""

    server: NatsServer
    bus: NatsBus
    store: FlowStore
    keys: KeyFiles

    async def play(self, story: Story, *, crash_after: int | None) -> tuple[End, int, bool]:
        """Plays a story in a new flow. Returns how it ended, the coordinator's broker calls, and whether it crashed."""
        coordinator = CoordinatorProcess(self.server.url, self.keys.public, crash_after=crash_after)
        port = await coordinator.ready()
        script = story.script()
        started = await start_flow.start(
            self.bus,
            await self.store.catalog.template(story.name, 1),
            source="detection",
            data=pack(story.start()),
            key=uuid.uuid4().hex,
        )
        agents = Agents(self.bus, self.store, script)
        async with (
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
            _running(agents.run(story.name, started.flow_id)),
            _running(self._replace_when_crashed(coordinator, port)) as keeper,
        ):
            people = People(channel, lambda name, role: mint(self.keys.private, name, roles=[role]))
            for act in story.acts:
                await self._act(act, people, story.name, started.flow_id)
            flow = await self._until_ended(story, started.flow_id)
            calls = coordinator.calls
            crashed = crash_after is not None and calls >= crash_after
            if crashed:
                await keeper
        await coordinator.stop()
        return _end(flow, script.effects), calls, crashed

    async def _replace_when_crashed(self, coordinator: CoordinatorProcess, port: int) -> None:
        code = await coordinator.ended()
        assert code == CRASHED, f"the coordinator ended by itself with {code}"
        await coordinator.begin_again(port)

    async def _act(self, act: Act, people: People, flow_type: str, flow_id: str) -> None:
        flow = await self._until(flow_type, flow_id, act.when)
        tried = False
        while True:
            try:
                await act.do(people, flow)
            except grpc.aio.AioRpcError as error:
                if tried and error.code() in _RECORDED_BEFORE_THE_CRASH:
                    return
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                    raise
                tried = True
                await asyncio.sleep(0.05)
            else:
                return

    async def _until_ended(self, story: Story, flow_id: str) -> Flow:
        """The flow at its end; a story that compensates after its completion has passed a final status before."""
        return await self._until(story.name, flow_id, lambda flow: status(flow) == story.ends)

    async def _until(self, flow_type: str, flow_id: str, condition: Callable[[Flow], bool]) -> Flow:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while True:
            flow = await self.store.load(flow_type, flow_id)
            if condition(flow):
                return flow
            assert asyncio.get_running_loop().time() < deadline, (
                f"{flow_type} {flow_id} is stuck as {FlowStatus.Name(status(flow))}: {_kinds(flow)}"
            )
            await asyncio.sleep(0.02)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running_server(tmp_path_factory.mktemp("crashes")) as running:
        yield running


@pytest.fixture
async def stage(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    async with await NatsBus.connect(server.settings("coordinator")) as bus:
        await ensure_streams(bus)
        catalog = Catalog(bus)
        keys = ensure_keys(tmp_path_factory.getbasetemp() / "keys")
        yield Stage(server, bus, FlowStore(bus, catalog), keys)


async def _put(stage: Stage, story: Story) -> None:
    for text in story.templates():
        template = Template.compile(load_yaml(text), Contracts.from_messages(MESSAGES))
        await stage.store.catalog.put(stored(template))
    await durables.ensure_durables(stage.bus, stage.store.catalog.all())
    # An ack wait of half a minute suits production, but not hundreds of crashes.
    for durable in COORDINATORS:
        await Mesh(stage.bus, stage.store.catalog).set_ack_wait(durable, timedelta(seconds=0.3))


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("story", STORIES, ids=lambda story: story.name)
async def test_p2_a_crash_after_any_broker_call_changes_no_end(story: Story, stage: Stage) -> None:
    await _put(stage, story)
    recorded = [await stage.play(story, crash_after=None) for _ in range(RECORDINGS)]
    expected = recorded[0][0]
    assert expected.status == FlowStatus.Name(story.ends)
    # Messages that happen to arrive together save calls: only the calls of the shortest recording are sure.
    calls = min(calls for _, calls, _ in recorded)
    parts = _parts()
    points = [point for point in range(1, calls + 1) if point % PARTS in parts]
    crashed = [point for point in points if await _crash_and_compare(stage, story, point, expected)]
    assert len(crashed) >= len(points) * REACHED, f"{story.name}: of {points} only {crashed} were reached"


async def _crash_and_compare(stage: Stage, story: Story, crash_after: int, expected: End) -> bool:
    """Crashes there and compares the ends. Returns whether any of the tries reached the point."""
    for _ in range(TRIES):
        end, calls, crashed = await stage.play(story, crash_after=crash_after)
        assert end == expected, f"{story.name}, crashed after call {crash_after}"
        if crashed:
            return True
        assert calls < crash_after, "a run that came as far has to crash"
    return False


def _parts() -> set[int]:
    chosen = os.environ.get("CRASH_PARTS")
    if chosen:
        return {int(part) for part in chosen.split(",")}
    return set(range(PARTS)) if os.environ.get("CI") else {os.getpid() % PARTS}


def _end(flow: Flow, had: Counter[str]) -> End:
    # A vote repeated because its first answer was lost is void and audited; no other message may be void.
    assert not flow.divergences
    return End(
        FlowStatus.Name(status(flow)),
        tuple(sorted(recorded.type for recorded in flow.facts.values())),
        tuple(sorted(f"{effect.step.name}:{effect.state.name}" for effect in flow.effects.values())),
        tuple(sorted(f"{run.step.name}:{run.state.name}:{run.run}" for run in flow.runs.values())),
        tuple(sorted(had.values())),
    )


def _kinds(flow: Flow) -> list[str]:
    return [f"{recorded.kind}:{recorded.type}" for recorded in flow.facts.values() if recorded.kind is Kind.EVENT]


@asynccontextmanager
async def _running(work: Coroutine[None, None, None]) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        if task.done() and not task.cancelled():
            task.result()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
