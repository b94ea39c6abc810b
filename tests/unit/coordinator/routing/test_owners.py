"""The owner of a flow: every replica names the same one, and few flows move when replicas come and go."""

from __future__ import annotations

from collections import Counter

from handrail.coordinator.routing.members import SILENCE, Members
from handrail.coordinator.routing.owners import owner

FLOWS = [f"{number:032x}" for number in range(6000)]
REPLICAS = ("a1", "b2", "c3")


def test_each_replica_owns_about_as_many_flows() -> None:
    owned = Counter(owner(flow_id, REPLICAS) for flow_id in FLOWS)
    assert set(owned) == set(REPLICAS)
    assert max(owned.values()) < 1.1 * min(owned.values())


def test_the_order_of_the_replicas_does_not_matter() -> None:
    assert all(owner(flow_id, REPLICAS) == owner(flow_id, REPLICAS[::-1]) for flow_id in FLOWS)


def test_when_a_replica_goes_only_its_flows_move() -> None:
    for flow_id in FLOWS:
        before = owner(flow_id, REPLICAS)
        if before != "b2":
            assert owner(flow_id, ("a1", "c3")) == before


def test_a_replica_is_there_from_its_first_word_until_it_is_silent() -> None:
    members = Members("a1")
    assert list(members.all) == ["a1"]
    assert members.hear("b2", 10.0)
    assert not members.hear("b2", 12.0)
    assert list(members.all) == ["a1", "b2"]
    assert members.expire(12.0 + SILENCE) == []
    assert members.expire(12.1 + SILENCE) == ["b2"]
    assert list(members.all) == ["a1"]


def test_a_replica_that_says_that_it_goes_is_gone_at_once() -> None:
    members = Members("a1")
    members.hear("b2", 10.0)
    assert members.lose("b2")
    assert not members.lose("b2")
    assert members.all == ("a1",)


def test_no_word_of_its_own_makes_a_replica_another() -> None:
    members = Members("a1")
    assert not members.hear("a1", 10.0)
    assert members.all == ("a1",)
