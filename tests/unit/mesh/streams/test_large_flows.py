"""A flow is read whole, however large it is: the broker ends an answer that is too large for a connection, 64 MiB."""

from __future__ import annotations

from handrail.mesh.bus import NatsBus, fresh_read
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.flow_store import FlowStore
from tests.support.flows import FLOW_ID

_LARGE = b"x" * 1_000_000
_MANY = 80


async def test_p4_a_flow_of_more_than_one_answer_is_read_whole(bus: NatsBus, store: FlowStore) -> None:
    subjects = [f"flow.refund.{FLOW_ID}.event.shop.{number:032x}.demo.Said" for number in range(_MANY)]
    expected = [await bus.publish(each, _LARGE) for each in subjects]
    another = await bus.publish(f"flow.refund.{1:032x}.event.shop.{1:032x}.demo.Said", b"")
    for after, at_least in ((0, 0), (0, expected[-1]), (expected[1], another)):
        messages = await store.messages("refund", FLOW_ID, after=after, at_least=at_least)
        assert [each.sequence for each in messages] == [each for each in expected if each > after]
    page = await fresh_read.read(bus, FLOW, ["flow.>"], at_least=another)
    assert ([each.sequence for each in page.messages], page.pending) == ([*expected, another], 0)
    assert page.up_to_sequence == another
