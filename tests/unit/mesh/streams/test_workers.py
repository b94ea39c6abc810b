"""Whether an agent's live workers fit a version, from what they say of themselves."""

from __future__ import annotations

import pytest

from handrail.coordinator.api.worker_fitness import require_fit, waits_for_nobody
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import workers
from handrail.mesh.streams.workers import Fit, Workers, live_workers
from handrail.testing import World
from handrail.v1.template_service_pb2 import UnfitAgent
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion
from tests.support.agents import Chain, begun, template


def state(*versions: tuple[int, str]) -> WorkerState:
    """A worker that has looked at these versions, each with what does not fit."""
    return WorkerState(
        versions=[WorkerVersion(flow_type="refund", version=version, problem=problem) for version, problem in versions]
    )


@pytest.mark.parametrize(
    "states, fit",
    [
        ([], Fit.UNKNOWN),
        ([state((1, ""))], Fit.FITS),
        ([state((1, "no handler"))], Fit.NONE),
        ([state((1, "no handler")), state((1, ""))], Fit.FITS),
        ([state((1, "no handler")), state((2, ""))], Fit.UNKNOWN),
        ([state((2, ""))], Fit.UNKNOWN),
    ],
)
def test_an_agent_fits_where_one_of_its_workers_does(states: list[WorkerState], fit: Fit) -> None:
    live = Workers("ledger", {str(number): each for number, each in enumerate(states)})
    assert live.fit("refund", 1) is fit
    assert live.fit("another", 1) is Fit.UNKNOWN


def test_an_activation_that_nobody_fits_is_refused_with_the_agents_names() -> None:
    require_fit(template(), [])
    with pytest.raises(HandrailError, match="no fitting live worker for ledger \\(no handler\\)") as refused:
        require_fit(template(), [UnfitAgent(agent="ledger", problem="no handler")])
    assert refused.value.reason_name == "WORKERS_DO_NOT_FIT"


async def test_a_flow_says_that_no_live_worker_of_the_agent_it_waits_for_fits() -> None:
    chain = Chain()
    async with World(templates=[template()], agents=[chain.enrichment, chain.notification]) as world:
        flow = await begun(world)
        assert await waits_for_nobody(world.bus, flow.flow) == frozenset(), "no worker at all: one may come"
        await workers.announce(world.bus, "ledger", "a" * 32, state((1, "no handler")))
        assert await waits_for_nobody(world.bus, flow.flow) == {"ledger"}
        await workers.announce(world.bus, "ledger", "b" * 32, state((1, "")))
        assert await waits_for_nobody(world.bus, flow.flow) == frozenset()


@pytest.mark.parametrize(
    "body, times",
    [
        (b"", 1025),
        (state((1, "x" * 100_000)).SerializeToString(), 42),
        (state((1, "x" * 900_000)).SerializeToString(), 1),
        (WorkerState(versions=[WorkerVersion()] * 10_000).SerializeToString(), 3),
        (WorkerState(stuck=[""] * 10_000).SerializeToString(), 3),
    ],
    ids=["many", "much", "one that is long", "versions without end", "words without end"],
)
async def test_an_agent_that_floods_the_announcements_hides_no_worker_of_another(body: bytes, times: int) -> None:
    async with World(templates=[template()]) as world:
        await workers.announce(world.bus, "ledger", "a" * 32, state((1, "")))
        for number in range(times):
            await world.bus.publish(f"worker.enrichment.{number:032x}", body)
        live = await live_workers(world.bus, ["enrichment", "ledger"])
    assert live["ledger"].fit("refund", 1) is Fit.FITS
    assert (live["enrichment"].states, live["enrichment"].too_many) == ({}, True)


async def test_what_is_no_word_of_a_worker_is_left_out() -> None:
    async with World(templates=[template()]) as world:
        await world.bus.publish(f"worker.ledger.{'a' * 32}", b"\xff\xff")
        await world.bus.publish("worker.ledger.nonsense", state((1, "")).SerializeToString())
        assert (await live_workers(world.bus, ["ledger"]))["ledger"].states == {}
