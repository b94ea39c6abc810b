"""Leases in the key-value bucket of a real server."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import pytest

from handrail.mesh.bus import Bus
from handrail.mesh.errors import WrongSequence
from handrail.mesh.streams import LEASES, LEASES_BUCKET
from handrail.mesh.streams.lease_bucket import Entry, LeaseBucket
from handrail.mesh.streams.leases import Leases
from tests.conftest import Connect
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

LONG = timedelta(minutes=1)
SHORT, LONGER = timedelta(seconds=1), timedelta(seconds=4)
"""The least that the broker knows, and more than a busy machine stalls between two renewals."""

"""The shortest that the broker takes."""


@pytest.fixture
def bucket(bus: Bus) -> LeaseBucket:
    return LeaseBucket(bus)


async def acquired(bucket: LeaseBucket, key: str, holder: bytes, *, ttl: timedelta) -> int:
    revision = await bucket.acquire(key, holder, ttl=ttl)
    assert revision is not None
    return revision


async def gone(bucket: LeaseBucket, key: str) -> None:
    async def is_gone() -> bool:
        return await bucket.entry(key) is None

    await eventually(is_gone)


async def test_of_many_who_want_a_lease_one_gets_it(nats_server: NatsServer, bus: Bus, connect: Connect) -> None:
    buckets = [LeaseBucket(await connect(nats_server.settings(f"replica{number}"))) for number in range(4)]
    for attempt in range(20):
        answers = await asyncio.gather(
            *(each.acquire(f"flow.{attempt}", b"%d" % n, ttl=LONG) for n, each in enumerate(buckets)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert sum(isinstance(answer, WrongSequence) for answer in answers) == 3


async def test_a_lease_that_was_released_is_free_at_once(bucket: LeaseBucket) -> None:
    first = await acquired(bucket, "duty.sweep", b"a", ttl=LONG)
    await bucket.release("duty.sweep", first)
    assert await bucket.entry("duty.sweep") is None
    second = await acquired(bucket, "duty.sweep", b"b", ttl=LONG)
    assert second > first
    assert await bucket.entry("duty.sweep") == Entry(b"b", second)


async def test_a_lease_that_is_not_renewed_runs_out(bucket: LeaseBucket) -> None:
    first = await acquired(bucket, "duty.sweep", b"a", ttl=LONGER)
    with pytest.raises(WrongSequence):
        await bucket.acquire("duty.sweep", b"b", ttl=SHORT)
    await gone(bucket, "duty.sweep")
    # Right after the expiry its marker still stands in the way of expectation zero.
    second = await acquired(bucket, "duty.sweep", b"b", ttl=SHORT)
    assert second > first
    with pytest.raises(WrongSequence):
        await bucket.renew("duty.sweep", b"a", first, ttl=SHORT)


async def test_a_renewed_lease_outlives_its_first_time_to_live_and_still_runs_out(bucket: LeaseBucket) -> None:
    revision = await acquired(bucket, "duty.sweep", b"a", ttl=LONGER)

    async def renewed_until_another_is_gone() -> bool:
        nonlocal revision
        before, revision = revision, await bucket.renew("duty.sweep", b"a", revision, ttl=LONGER)
        assert revision > before
        return await bucket.entry("flow.refund.a") is None

    await acquired(bucket, "flow.refund.a", b"b", ttl=LONGER)
    await eventually(renewed_until_another_is_gone)
    assert await bucket.entry("duty.sweep") == Entry(b"a", revision)
    await gone(bucket, "duty.sweep")


async def test_an_expired_lease_leaves_nothing_behind(bus: Bus, bucket: LeaseBucket) -> None:
    await bucket.acquire("flow.refund.a", b"a", ttl=SHORT)
    revision = await acquired(bucket, "flow.refund.b", b"a", ttl=LONG)
    await bucket.release("flow.refund.b", revision)

    async def left() -> int:
        info = await bus.request_json(f"$JS.API.STREAM.INFO.{LEASES}")
        return int(info["state"]["messages"])

    assert await eventually(left, lambda number: number == 0) == 0


async def test_a_lease_that_the_broker_forgot_to_expire_is_taken_over(bus: Bus, bucket: LeaseBucket) -> None:
    left_behind = await bus.publish(f"$KV.{LEASES_BUCKET}.flow.refund.a", b"gone")

    async def is_taken_over() -> bool:
        with contextlib.suppress(WrongSequence):
            return (await bucket.acquire("flow.refund.a", b"a", ttl=LONGER) or 0) > left_behind
        return False

    assert not await is_taken_over(), "it may be renewed at any moment"
    await eventually(is_taken_over)
    entry = await bucket.entry("flow.refund.a")
    assert entry is not None
    assert entry.value == b"a"


async def test_work_goes_on_where_nobody_holds_a_lease_and_the_broker_refuses_it(
    bus: Bus, bucket: LeaseBucket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    publish = bus.publish

    async def refuse_leases(subject: str, body: bytes, **options: Any) -> int:
        if subject.startswith("$KV."):
            raise WrongSequence(subject, 7)
        return await publish(subject, body, **options)

    monkeypatch.setattr(bus, "publish", refuse_leases)
    async with Leases(bucket, holder="a").hold("flow.refund.a"):
        assert await bucket.entry("flow.refund.a") is None
    assert "continuing without" in caplog.text


async def test_releasing_a_lease_that_was_lost_leaves_it_to_its_new_holder(bucket: LeaseBucket) -> None:
    lost = await acquired(bucket, "duty.sweep", b"a", ttl=SHORT)
    await gone(bucket, "duty.sweep")
    held = await acquired(bucket, "duty.sweep", b"b", ttl=LONG)
    await bucket.release("duty.sweep", lost)
    assert await bucket.entry("duty.sweep") == Entry(b"b", held)


async def test_p2_acquiring_and_renewing_again_after_a_lost_answer_gives_the_same_lease(bucket: LeaseBucket) -> None:
    first = await acquired(bucket, "duty.sweep", b"a", ttl=LONG)
    assert await bucket.acquire("duty.sweep", b"a", ttl=LONG) == first
    second = await bucket.renew("duty.sweep", b"a", first, ttl=LONG)
    assert await bucket.renew("duty.sweep", b"a", first, ttl=LONG) == second


async def test_a_lease_survives_a_killed_broker(nats_server: NatsServer, bucket: LeaseBucket) -> None:
    revision = await acquired(bucket, "duty.sweep", b"a", ttl=LONG)
    nats_server.kill()
    nats_server.start()
    assert await bucket.entry("duty.sweep") == Entry(b"a", revision)
    assert await bucket.renew("duty.sweep", b"a", revision, ttl=LONG) > revision
