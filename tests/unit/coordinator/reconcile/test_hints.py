"""Hints: agents hear once of each flow that was halted or moved, those of a moment together."""

from __future__ import annotations

import asyncio

from handrail.coordinator.decide import operator_requests
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.reconcile.flow_in_hand import FlowInHand
from handrail.coordinator.reconcile.hints import Hints
from handrail.mesh.permissions.accounts import HINT
from tests.support import orders
from tests.support.simulation import BEGINNING, Simulation
from tests.support.waiting import until
from tests.unit.coordinator.reconcile.test_flow_in_hand import TEMPLATE


async def test_flows_of_a_moment_share_a_hint() -> None:
    sent: list[tuple[str, bytes]] = []
    hints = Hints(lambda subject, body: sent.append((subject, body)))
    for flow_id in ("a", "b", "c"):
        hints.tell(flow_id)
    await until(lambda: sent)
    assert sent == [(HINT, b"a\nb\nc")]
    hints.tell("d")
    await until(lambda: len(sent) == 2)
    assert sent[1] == (HINT, b"d")


async def test_no_hint_grows_without_limit() -> None:
    sent: list[bytes] = []
    hints = Hints(lambda subject, body: sent.append(body))
    for number in range(1300):
        hints.tell(str(number))
    assert [len(body.split(b"\n")) for body in sent] == [500, 500]
    await until(lambda: len(sent) == 3)
    await asyncio.sleep(0)
    assert b"\n".join(sent).split(b"\n") == [str(number).encode() for number in range(1300)]


def test_agents_are_told_once_of_a_halt() -> None:
    said = Simulation(TEMPLATE)
    said.coordinator = False
    said.say(said.start(orders.make("OrderPlaced", buyer="kim", units=2), agent="storefront"))
    hand = FlowInHand(said.flow, replicated=False)
    assert not hand.is_new_to_agents()
    halt = operator_requests.cancelling(said.flow, Caller("ola"))
    assert hand.take_append(halt, said.flow.last_sequence + 1, now=BEGINNING)
    assert hand.is_new_to_agents()
    assert not hand.is_new_to_agents()
