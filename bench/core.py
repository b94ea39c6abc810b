"""`python bench/core.py`: what the pure functions cost, in microseconds of CPU for a whole flow. No server.

The real agents and the real coordinator first record flows of the benchmark's templates, in memory. Each flow's
messages differ from those of the others. "fold" reads messages that this process has not seen, "again" the same ones
once more. "evolve", "decide" and "timers" are sums over all states of a flow. Figures are CPU time, the lowest of
several rounds: on a shared machine it repeats best.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from google.type.money_pb2 import Money

from bench.chain.agents import detect, enrich, notify, propose
from handrail.coordinator.decide import decide
from handrail.coordinator.decide.timers import timers
from handrail.mesh import streams
from handrail.mesh.bus import RawMessage
from handrail.mesh.flow import Flow
from handrail.mesh.fold import begin, evolve, fold
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Recorded, decode
from handrail.mesh.wire.subjects import flow_filter
from handrail.testing import World, load_template
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
)

WORKS = ("happy", "compensated", "approved")

_MESSAGES = (ChargebackEnriched, ChargebackReceived, CustomerNotified, LargeRefundGranted, RefundPaid)
_HEAD = ("messages", "decode", "fold", "again", "evolve", "decide", "timers", "copy")


class Recording(NamedTuple):
    """The messages of some flows of one template, as the stream has them."""

    template: Template
    flows: Sequence[Sequence[RawMessage]]


def main() -> int:
    """Records the flows, and prints a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=40, help="recorded flows of each kind (default 40)")
    parser.add_argument("--rounds", type=int, default=15, help="measurements of each function (default 15)")
    options = parser.parse_args()
    logging.disable(logging.WARNING)  # one step of each compensated flow fails
    print(f"{'µs a flow':12}" + "".join(f"{title:>10}" for title in _HEAD))
    for work in WORKS:
        recording = asyncio.run(record(work, options.flows))
        figures = measure(recording, options.rounds)
        print(f"{work:12}" + "".join(f"{figure:10.1f}" for figure in figures), flush=True)
    return 0


async def record(work: str, number: int) -> Recording:
    """Runs flows of one of the WORKS to their end, and returns their messages."""
    template = _template(work)
    agents = [propose] if work == "approved" else [detect, enrich, notify]
    async with World(templates=[template], agents=agents) as world:
        flows = []
        for index in range(number):
            amount = Money(currency_code="EUR", units=100)
            event = ChargebackReceived(chargeback_id=f"cb-{index}", account_id=f"a-{index}", amount=amount)
            flow = await world.start(work, event, requester="kim")
            if work == "approved":
                await world.approve(flow, voter="lee", roles=["finance"])
            flows.append(world.bus.matching(streams.FLOW, flow_filter(work, flow.flow_id)))
    return Recording(template, flows)


def measure(recording: Recording, rounds: int) -> list[float]:
    """Returns the figures of a line."""
    template, flows = recording
    histories = [_decoded(flow) for flow in flows]
    states = [_states(template, history) for history in histories]

    def folds(template: Template) -> Callable[[Sequence[Recorded]], object]:
        return lambda history: fold(template, history)

    fresh = [_template(template.name) for _ in range(rounds)]
    for each in fresh:
        fold(each, histories[0])  # compiles the rules of the contracts
    news = [_timed(folds(each), histories[1:]) for each in fresh]
    return [
        len(flows[0]),
        _lowest(rounds, _decoded, flows),
        min(news),
        _lowest(rounds, folds(fresh[0]), histories),
        _lowest(rounds, lambda history: _states(template, history), histories),
        _lowest(rounds, lambda flow: [decide(state, _now(state)) for state in flow], states),
        _lowest(rounds, lambda flow: [timers(state) for state in flow], states),
        _lowest(rounds, lambda flow: flow[-1].copy(), states),
    ]


def _template(work: str) -> Template:
    return load_template(Path(__file__).parent / "chain" / f"{work}.yaml", _MESSAGES)


def _decoded(flow: Sequence[RawMessage]) -> list[Recorded]:
    return [decode(each.subject, each.body, sequence=each.sequence, time=each.time) for each in flow]


def _states(template: Template, history: Sequence[Recorded]) -> list[Flow]:
    return list(accumulate(history, evolve, initial=begin(template)))[1:]


def _now(flow: Flow) -> datetime:
    return flow.last_time or flow.start_time


def _lowest(rounds: int, function: Callable[..., object], values: Sequence[object]) -> float:
    return min(_timed(function, values) for _ in range(rounds))


def _timed(function: Callable[..., object], values: Sequence[object]) -> float:
    """Microseconds of CPU that a call with one of the values costs."""
    gc.collect()
    began = time.process_time()
    for value in values:
        function(value)
    return (time.process_time() - began) / len(values) * 1e6


if __name__ == "__main__":
    sys.exit(main())
