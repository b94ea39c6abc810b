"""What a flow costs, counted: requests to the broker, and calls of the functions that cost most.

If a change saves operations, this test fails, too: record the smaller numbers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.flow_costs import Costs, counted_flows
from tests.support.nats_server import NatsServer

RECORDED: Mapping[str, Costs] = {
    "happy": {
        "messages": 4,
        "agents: acks": 3,
        "agents: publishes": 3,
        "coordinator: acks": 4,
        "coordinator: direct gets": 1,
        "coordinator: decodes": 4,
        "coordinator: folds": 4,
    },
    "compensated": {
        "messages": 11,
        "agents: acks": 5,
        "agents: publishes": 5,
        "coordinator: acks": 7,
        "coordinator: direct gets": 1,
        "coordinator: hints": 1,
        "coordinator: publishes": 5,
        "coordinator: decodes": 7,
        "coordinator: folds": 11,
        "coordinator: decides": 8,
    },
    "approved": {
        "messages": 5,
        "agents: acks": 1,
        "agents: publishes": 1,
        "coordinator: acks": 4,
        "coordinator: direct gets": 3,
        "coordinator: publishes": 3,
        "coordinator: timers": 2,
        "coordinator: purges": 2,
        "coordinator: decodes": 6,
        "coordinator: folds": 9,
        "coordinator: decides": 7,
        "coordinator: timer plans": 4,
    },
}
"""Maps a flow type to the operations of one flow that runs alone, apart from background work such as the sweep."""

TRIES = 12
"""The coordinator's 250 ms of collecting may cut a flow in two, which costs more, and a busy machine may let it see two
messages at once, which costs less. Each recorded number must be seen once: what a change costs, each flow costs.
"""

TOGETHER = 20
_CUT = 1.3
"""Of many flows at once, some are cut in two. They set and clear timers that the others do without."""


async def test_flows_cost_the_recorded_operations(nats_server: NatsServer, tmp_path: Path) -> None:
    async with counted_flows(nats_server, tmp_path) as flows:
        for flow_type, recorded in RECORDED.items():
            tried: list[Costs] = []
            while _unseen(recorded, tried) and len(tried) < TRIES:
                tried.append(await flows.run(flow_type))
            unseen = _unseen(recorded, tried)
            assert not unseen, f"{flow_type}: {unseen}: {[_changed(recorded, costs) for costs in tried]}"
            together = min([await flows.run(flow_type, TOGETHER) for _ in range(3)], key=_total)
            assert _total(together) <= TOGETHER * _total(recorded) * _CUT, together
            if flow_type == "happy":  # one read looks for the decisions of all flows that were collected together
                assert together["coordinator: direct gets"] <= TOGETHER / 4


def _total(costs: Costs) -> int:
    return sum(costs.values())


def _unseen(recorded: Costs, tried: Sequence[Costs]) -> set[str]:
    """The operations that no flow did as often as recorded."""
    names = {*recorded, *(name for costs in tried for name in costs)}
    return {name for name in names if not any(costs.get(name) == recorded.get(name) for costs in tried)}


def _changed(recorded: Costs, costs: Costs) -> Costs:
    return {name: costs.get(name, 0) for name in {*recorded, *costs} if costs.get(name) != recorded.get(name)}
