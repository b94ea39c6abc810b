"""What is told of an agent's live workers: they say it themselves, and may say anything."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from handrail.coordinator.api.agent_reports import oldest_unsettled
from handrail.coordinator.api.agent_view import agent_usage
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.durables import Durable, agent_durable, agent_filters
from handrail.mesh.streams.workers import Workers
from handrail.testing.memory import MemoryBus
from handrail.v1.template_service_pb2 import AgentUsage
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion
from tests.support import flows

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
REFUNDS = [flows.template(version=1), flows.template(version=2)]


def durable(*subjects: str, pending: int = 0, in_hand: int = 0, settled_up_to: int = 0) -> Durable:
    """The durable of the agent enrichment."""
    return Durable(
        stream=FLOW,
        name=agent_durable("enrichment"),
        subjects=frozenset(subjects),
        config={"filter_subjects": list(subjects)},
        pending=pending,
        ack_pending=in_hand,
        settled_up_to=settled_up_to,
    )


def said(version: int, problem: str = "", flow_type: str = "refund") -> WorkerVersion:
    return WorkerVersion(flow_type=flow_type, version=version, problem=problem)


def usage(*states: WorkerState, may_see: Callable[[str], bool] = lambda name: True) -> AgentUsage:
    """The agent enrichment, whose workers say this."""
    templates = [*REFUNDS, flows.template("claim")]
    known = durable(*agent_filters(templates)["enrichment"])
    workers = Workers("enrichment", {str(number): each for number, each in enumerate(states)})
    return agent_usage([known], None, workers, templates, may_see)


def test_of_each_version_it_is_told_how_many_workers_fit_it_and_what_does_not_fit() -> None:
    found = usage(
        WorkerState(versions=[said(1), said(2, "no handler for step enrich")]),
        WorkerState(versions=[said(1), said(2)]),
        WorkerState(),
    )
    assert found.workers.live == 3
    assert [(each.flow_type, each.version, each.fitting, each.unfit, each.problem) for each in found.workers.fits] == [
        ("claim", 1, 0, 0, ""),
        ("refund", 1, 2, 0, ""),
        ("refund", 2, 1, 1, "no handler for step enrich"),
    ]


def test_a_worker_counts_once_and_only_for_versions_that_are_stored() -> None:
    lies = [said(1)] * 50 + [said(7), said(1, flow_type="nobody")]
    found = usage(WorkerState(versions=lies, stuck=["x" * 100_000] * 500))
    assert [(each.flow_type, each.version, each.fitting) for each in found.workers.fits] == [
        *(("claim", 1, 0), ("refund", 1, 1), ("refund", 2, 0)),
    ]
    assert found.workers.stuck_handlers == 500
    assert len(found.workers.stuck) == 20
    assert max(map(len, found.workers.stuck)) == 300


def test_who_may_not_see_all_flow_types_of_an_agent_is_not_told_what_its_workers_say() -> None:
    state = WorkerState(versions=[said(1)], stuck=["handler enrich (flow 1234), at work for 70 s"])
    shown = usage(state, may_see=lambda name: name == "claim")
    assert [each.flow_type for each in shown.workers.fits] == ["claim"]
    assert all("claim" in each for each in shown.filter_subjects)
    assert (shown.workers.live, shown.workers.stuck_handlers, list(shown.workers.stuck)) == (1, 1, [])
    assert list(usage(state).workers.stuck) == list(state.stuck)


def test_workers_that_are_too_many_to_read_are_not_told() -> None:
    known = durable(*agent_filters(REFUNDS)["enrichment"])
    workers = Workers("enrichment", {}, too_many=True)
    assert not agent_usage([known], NOON, workers, REFUNDS, lambda name: True).HasField("workers")


def test_the_messages_of_all_durables_of_an_agent_are_added_up() -> None:
    both = [durable("flow.refund.*.event.>", pending=2, in_hand=1), durable("flow.refund.*.undo.>", pending=3)]
    found = agent_usage(both, NOON, Workers("enrichment", {}), REFUNDS, lambda name: True)
    assert (found.pending, found.ack_pending, len(found.filter_subjects)) == (5, 1, 2)
    assert found.oldest_unsettled_time.ToDatetime(UTC) == NOON


async def test_the_oldest_message_is_looked_for_by_every_filter_after_what_is_settled() -> None:
    bus = MemoryBus(NOON)
    subjects = ["flow.refund.f.event.a.1.x", "flow.refund.f.event.a.2.other", "flow.refund.f.event.a.3.y"]
    times = [await stored(bus, each) for each in subjects]
    filters = ("flow.refund.*.event.*.*.x", "flow.refund.*.event.*.*.y")
    assert await oldest_unsettled(bus, durable(*filters, pending=2)) == times[0]
    assert await oldest_unsettled(bus, durable(*filters, in_hand=1, settled_up_to=1)) == times[2]
    assert await oldest_unsettled(bus, durable(*filters, settled_up_to=1)) is None, "nothing is open"
    many = [f"flow.refund.*.event.*.*.{number}" for number in range(20)]
    assert await oldest_unsettled(bus, durable(*filters, *many, pending=1)) is None, "that would cost too much"


async def stored(bus: MemoryBus, subject: str) -> datetime:
    """Stores a message, and returns when that was: each a little later."""
    sequence = await bus.publish(subject, b"")
    message = await bus.by_sequence(FLOW, sequence)
    assert message is not None
    bus.now += timedelta(seconds=1)
    return message.time
