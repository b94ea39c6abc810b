"""Whoever fails to sign in again and again waits; others don't."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handrail.console.web.throttle import MOST_FAILURES, WINDOW, Throttle

NOW = datetime(2026, 11, 28, 10, tzinfo=UTC)


def failing(address: str, times: int) -> Throttle:
    throttle = Throttle()
    for number in range(times):
        throttle.failed(address, NOW + timedelta(seconds=number))
    return throttle


def test_failures_are_taken_up_to_a_number_within_the_window() -> None:
    assert not failing("192.0.2.1", MOST_FAILURES - 1).refuses("192.0.2.1", NOW)
    throttle = failing("192.0.2.1", MOST_FAILURES)
    assert throttle.refuses("192.0.2.1", NOW + timedelta(seconds=MOST_FAILURES))
    assert not throttle.refuses("192.0.2.1", NOW + WINDOW)


def test_others_are_not_refused() -> None:
    assert not failing("192.0.2.1", MOST_FAILURES).refuses("192.0.2.2", NOW)


def test_a_network_of_64_bits_counts_as_one() -> None:
    throttle = failing("2001:db8::1", MOST_FAILURES)
    assert throttle.refuses("2001:db8::ffff:1", NOW)
    assert not throttle.refuses("2001:db8:0:1::1", NOW)
