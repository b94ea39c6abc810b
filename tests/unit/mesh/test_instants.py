"""Times as numbers come back as they were, also before 1970."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.instants import from_micros, from_nanoseconds, in_nanoseconds, micros

MICROSECOND = timedelta(microseconds=1)


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_time_comes_back(time: datetime) -> None:
    assert micros(time) == (time - datetime(1970, 1, 1, tzinfo=UTC)) // MICROSECOND
    assert from_micros(micros(time)) == from_nanoseconds(micros(time) * 1000 + 999) == time


@given(st.timedeltas(min_value=timedelta(), max_value=timedelta(days=10_000)))
def test_a_duration_in_nanoseconds(duration: timedelta) -> None:
    assert in_nanoseconds(duration) * MICROSECOND == duration * 1000
