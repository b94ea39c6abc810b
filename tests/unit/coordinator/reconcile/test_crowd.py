"""Who crowds a durable: decided by what was delivered and by what is left."""

from __future__ import annotations

from handrail.coordinator.reconcile.crowd import CALM, CROWDED, SAMPLE, Crowd


def crowd(*agents: str, pending: int = CROWDED + 1, times: int = SAMPLE) -> Crowd:
    """A crowd to which so many messages of each of these agents were delivered."""
    made = Crowd()
    for agent in times * agents:
        made.add(agent, pending)
    return made


def test_who_sent_most_of_a_backlog_crowds() -> None:
    assert crowd("ledger", "refunds", "ledger", "ledger", "ledger").look() == "ledger"


def test_nobody_crowds_where_all_send_alike() -> None:
    assert crowd(*3 * ["ledger"], "refunds").look() == ""
    assert crowd(*40 * ["ledger"], *40 * ["refunds"], *11 * ["notification"]).look() == ""


def test_who_send_alike_crowd_together_if_another_sends_far_less() -> None:
    assert crowd(*40 * ["ledger"], *39 * ["refunds"], *10 * ["notification"]).look() == "ledger"


def test_nobody_crowds_without_a_backlog() -> None:
    assert crowd("ledger", "ledger", pending=CROWDED).look() == ""


def test_the_coordinator_never_crowds() -> None:
    assert crowd("coordinator", "coordinator", "ledger").look() == "ledger"
    assert crowd("coordinator").look() == ""


def test_a_look_counts_what_came_since_the_last_one() -> None:
    seen = crowd("ledger", "ledger")
    seen.look()
    assert seen.is_silent
    assert seen.look() == ""
    for _ in range(SAMPLE):
        seen.add("refunds", CROWDED + 1)
    assert seen.look() == "refunds"


def test_a_few_deliveries_do_not_tell_who_crowds() -> None:
    seen = Crowd({"ledger", "refunds", "notification"})
    for _ in range(SAMPLE - 1):
        seen.add("ledger", CROWDED + 1)
        assert seen.look() == ""
    seen.add("ledger", CROWDED + 1)
    assert seen.look() == "ledger", "none of another came meanwhile"


def test_messages_of_the_coordinator_tell_nothing_about_who_crowds() -> None:
    assert crowd(*SAMPLE * ["coordinator"], "ledger", times=1).look() == ""


def test_what_came_without_a_backlog_does_not_count_later() -> None:
    seen = crowd("ledger", pending=CROWDED)
    assert seen.look() == ""
    for agent in (SAMPLE // 2) * ["ledger", "refunds"]:
        seen.add(agent, CROWDED + 1)
    assert seen.look() == ""


def test_it_is_not_silent_after_a_delivery() -> None:
    assert not crowd("ledger", times=1).is_silent


def test_it_is_calm_when_hardly_anything_is_left() -> None:
    assert not crowd("ledger", pending=CALM + 1).is_calm
    assert crowd("ledger", pending=CALM).is_calm


def test_who_send_alike_crowd_together_if_another_sent_before_and_now_nothing() -> None:
    seen = crowd("notification", "coordinator", pending=CALM)
    assert seen.look() == ""
    for agent in SAMPLE * ["ledger", "refunds"]:
        seen.add(agent, CROWDED + 1)
    assert seen.look() == "ledger"
    assert seen.known == {"ledger", "refunds", "notification"}


def test_nothing_is_expected_of_who_is_left_out() -> None:
    beside = Crowd({"hostile", "notification"})
    for agent in SAMPLE * ["ledger", "refunds", "notification"]:
        beside.add(agent, CROWDED + 1)
    assert beside.look({"hostile"}) == ""
