"""Agents that send too much are reported, by name, from the limit until they have fallen below half of it."""

from __future__ import annotations

import logging

import pytest

from handrail.coordinator.reconcile.traffic import WINDOW, Rate, Traffic
from handrail.coordinator.reconcile.traffic_watch import TrafficWatch
from handrail.mesh.bus import RawMessage
from handrail.testing.memory import MemoryDelivery
from tests.support.simulation import BEGINNING

SECONDS = int(WINDOW.total_seconds())
LIMIT = Rate(messages=10, bytes=10_000)


def sent(traffic: Traffic, agent: str, messages: int, *, size: int = 1) -> None:
    """Counts messages of an agent."""
    for _ in range(messages):
        traffic.add(agent, size)


def test_more_messages_than_the_limit_are_an_excess() -> None:
    traffic = Traffic(LIMIT)
    sent(traffic, "ledger", 10 * SECONDS + 1)
    sent(traffic, "refunds", 10 * SECONDS)
    assert set(traffic.excesses(100.0)) == {"ledger"}


def test_more_bytes_than_the_limit_are_an_excess() -> None:
    traffic = Traffic(LIMIT)
    sent(traffic, "ledger", SECONDS, size=10_001)
    assert traffic.excesses(100.0) == {"ledger": Rate(messages=1, bytes=10_001)}


def test_the_rate_is_that_of_the_whole_window() -> None:
    traffic = Traffic(LIMIT)
    for second in range(SECONDS):
        sent(traffic, "ledger", 11)
        is_over = bool(traffic.excesses(100.0 + second))
        assert is_over == (11 * (second + 1) > 10 * SECONDS), second


def test_an_excess_ends_below_half_the_limit() -> None:
    traffic = Traffic(LIMIT)
    sent(traffic, "ledger", 20 * SECONDS)
    assert traffic.excesses(100.0)
    sent(traffic, "ledger", 6 * SECONDS)
    assert traffic.excesses(100.0 + SECONDS), "a rate between half of the limit and the limit ends nothing"
    sent(traffic, "ledger", 5 * SECONDS)
    assert not traffic.excesses(100.0 + 2 * SECONDS)
    sent(traffic, "ledger", 6 * SECONDS)
    assert not traffic.excesses(100.0 + 3 * SECONDS), "and begins nothing"


def delivery(subject: str, *, delivered: int = 1) -> MemoryDelivery:
    """A message of one byte as `track` delivers it."""
    return MemoryDelivery(RawMessage(subject, b"x", 1, BEGINNING), delivered, lambda _: None)


def event(agent: str) -> str:
    """The subject of an event."""
    return f"flow.refund.{'0' * 32}.event.{agent}.{'1' * 32}.payments.v1.ChargebackReceived"


def test_an_episode_is_told_once_and_names_the_agent_and_the_command(caplog: pytest.LogCaptureFixture) -> None:
    watch = TrafficWatch(LIMIT)
    for moment in range(3):
        for _ in range(20 * SECONDS):
            watch.count(delivery(event("ledger")))
        watch.look(100.0 + moment * SECONDS)
    errors = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "agent ledger" in errors[0]
    assert "nats-permissions --suspend ledger" in errors[0]
    assert watch.findings() == {"share.ledger": errors[0]}
    watch.look(100.0 + 4 * SECONDS)
    assert watch.findings() == {}


def test_the_coordinators_own_messages_and_second_deliveries_do_not_count() -> None:
    watch = TrafficWatch(LIMIT)
    for _ in range(20 * SECONDS):
        watch.count(delivery(event("coordinator")))
        watch.count(delivery("due.refund.0.deadline"))
        watch.count(delivery(event("ledger"), delivered=2))
    watch.look(100.0)
    assert watch.findings() == {}


def test_a_name_that_is_none_is_not_repeated() -> None:
    watch = TrafficWatch(LIMIT)
    for _ in range(20 * SECONDS):
        watch.count(delivery(event("Eve\u202e")))
    watch.look(100.0)
    assert set(watch.findings()) == {"share.-"}
