"""A flow's business key: what its first event says, if the flow's id follows from it."""

from __future__ import annotations

from dataclasses import replace

from handrail.mesh.flow import Flow
from handrail.mesh.wire import ids
from handrail.v1.event_pb2 import Event
from tests.support.orders import begun

OWN = ids.flow_id_from_key("order", "CB-2041")


def saying(key: str, *, flow_id: str) -> Flow:
    """A flow with this id whose first event says this key."""
    flow = begun().flow.copy()
    assert flow.first is not None
    event = Event()
    event.CopyFrom(flow.first.event)
    event.key = key
    flow.flow_id, flow.first = flow_id, replace(flow.first, event=event)
    return flow


def test_a_flow_has_the_key_that_its_id_follows_from() -> None:
    assert saying("CB-2041", flow_id=OWN).key == "CB-2041"


def test_a_flow_without_a_key_has_none() -> None:
    assert saying("", flow_id=OWN).key == ""
    assert saying("", flow_id=ids.flow_id_from_key("order", "")).key == ""


def test_p4_nobody_shows_a_flow_under_another_ones_key() -> None:
    assert saying("CB-2042", flow_id=OWN).key == ""


def test_a_key_that_no_list_has_room_for_is_not_shown() -> None:
    longest = "k" * ids.LONGEST_KEY
    assert saying(longest, flow_id=ids.flow_id_from_key("order", longest)).key == longest
    assert saying(longest + "k", flow_id=ids.flow_id_from_key("order", longest + "k")).key == ""
