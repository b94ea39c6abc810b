"""How a bus behaves, whichever it is: each test runs on a real server and on the bus in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from handrail.mesh.bus import Bus, NatsBus, RawMessage, TooManySubjects, fresh_read
from handrail.mesh.bus.direct_get import SUBJECT_LIMIT
from handrail.mesh.bus.publish import ROOM
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, TooLarge, WrongSequence
from handrail.mesh.streams import (
    FLOW,
    KEY,
    QUARANTINE,
    TEMPLATE,
    TIMER,
    WORKER,
    ensure_stream,
    ensure_streams,
    quarantine_stream,
)
from handrail.mesh.streams.quarantine_streams import quarantines
from handrail.testing.memory import MemoryBus
from tests.support.nats_server import running_server
from tests.support.waiting import eventually, until

SOON = timedelta(milliseconds=300)
LATER = timedelta(hours=1)
PAYLOAD = 1 << 20


@pytest.fixture(params=["memory", "nats"])
async def bus(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bus]:
    """A bus with the streams, empty."""
    if request.param == "memory":
        yield MemoryBus(datetime.now(UTC))
        return
    with running_server(tmp_path / "nats") as server:
        async with await NatsBus.connect(server.settings("coordinator")) as bus:
            await ensure_streams(bus)
            await ensure_stream(bus, quarantine_stream("ledger"), like=FLOW)
            yield bus


def now(bus: Bus) -> datetime:
    """The time of whoever stores messages."""
    return bus.now if isinstance(bus, MemoryBus) else datetime.now(UTC)


def subjects(messages: Sequence[RawMessage]) -> list[str]:
    return [message.subject for message in messages]


async def store(bus: Bus, *stored: str) -> list[int]:
    """Store a message on each of these subjects, with the subject as its body."""
    return [await bus.publish(subject, subject.encode()) for subject in stored]


async def arm(bus: Bus, name: str, due: datetime) -> int:
    """Arm a timer, as TimerSchedule does."""
    at = due.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    headers = {"Nats-Schedule": f"@at {at}", "Nats-Schedule-Target": f"due.refund.f.{name}"}
    return await bus.publish(f"timer.refund.f.{name}", b"7", headers=headers)


async def armed(bus: Bus) -> list[str]:
    """The subjects of the timers that are armed."""
    page = await bus.read_forward(TIMER, "timer.>", from_sequence=1, limit=100)
    return subjects(page.messages)


async def has_fired(bus: Bus, name: str) -> bool:
    """Whether a timer arrived where it belongs."""
    if isinstance(bus, MemoryBus):
        return f"due.refund.f.{name}" in bus.fire()
    return await bus.last(TIMER, f"due.refund.f.{name}") is not None


async def test_each_message_has_the_next_sequence_of_its_stream(bus: Bus) -> None:
    assert await store(bus, "flow.refund.f.a", "template.refund.1", "flow.refund.f.b", "key.refund.k") == [1, 1, 2, 1]


async def test_a_publish_without_a_wait_tells_once_and_later_how_it_went(bus: Bus) -> None:
    told: list[int | HandrailError] = []
    [first] = await store(bus, "flow.refund.f.event.a.1.x")
    place = "flow.refund.f.event.a.2.>"
    bus.publish_nowait("flow.refund.f.event.a.2.x", b"2", told.append, expected_sequence=0, expected_filter=place)
    bus.publish_nowait("flow.refund.f.event.a.1.x", b"1", told.append)
    bus.publish_nowait("flow.refund.f.event.a.2.y", b"2", told.append, expected_sequence=0, expected_filter=place)
    assert told == []
    await until(lambda: len(told) == 3)
    assert told[0] == first + 1
    assert [type(each) for each in told[1:]] == [AlreadyStored, WrongSequence]


async def test_a_message_comes_back_as_it_was_published(bus: Bus) -> None:
    before = now(bus) - timedelta(seconds=5)
    sequence = await bus.publish("flow.refund.f.a", b"\x00\xff", headers={"traceparent": "00-aa-bb-01"})
    message = await bus.by_sequence(FLOW, sequence)
    assert message is not None
    assert (message.subject, message.body, message.sequence) == ("flow.refund.f.a", b"\x00\xff", sequence)
    assert message.headers["traceparent"] == "00-aa-bb-01"
    assert message.time.tzinfo is UTC
    assert before < message.time < before + timedelta(minutes=1)
    on_leader = await bus.last_on_leader(FLOW, "flow.refund.f.a")
    assert on_leader is not None
    assert (on_leader.subject, on_leader.body, on_leader.time) == (message.subject, message.body, message.time)
    assert on_leader.headers == message.headers


async def test_a_message_without_headers_has_none(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a")
    message = await bus.last(FLOW, "flow.refund.f.a")
    assert message is not None
    assert message.headers == {}


@pytest.mark.parametrize("subject", ["flow.refund.f.a", "template.refund.1", "key.refund.k"])
async def test_p3_what_is_recorded_is_written_once(bus: Bus, subject: str) -> None:
    await store(bus, subject)
    with pytest.raises(AlreadyStored) as refusal:
        await bus.publish(subject, b"another")
    assert refusal.value.subject == subject
    stream = {"flow": FLOW, "template": TEMPLATE, "key": KEY}[subject.partition(".")[0]]
    message = await bus.last(stream, subject)
    assert message is not None
    assert message.body == subject.encode()


async def test_each_quarantine_takes_its_own_and_keeps_every_message_of_a_subject(bus: Bus) -> None:
    own, reported = "quarantine.refund.f.coordinator.-.i", "quarantine.refund.f.coordinator.ledger.i"
    told = "quarantine.refund.f.ledger.refunds.i"
    assert await store(bus, own, reported, told, told) == [1, 1, 2, 3]
    assert subjects((await bus.read_forward(QUARANTINE, "quarantine.>", from_sequence=1, limit=9)).messages) == [own]
    page = await bus.read_forward(quarantine_stream("ledger"), "quarantine.>", from_sequence=1, limit=9)
    assert subjects(page.messages) == [reported, told, told]
    with pytest.raises(WrongSequence):
        await bus.publish(reported, b"another", expected_sequence=0)
    assert await quarantines(bus) == ["", "ledger"]


async def test_of_a_worker_the_newest_word_is_kept(bus: Bus) -> None:
    assert [await bus.publish("worker.ledger.a", body) for body in (b"first", b"second")] == [1, 2]
    await store(bus, "worker.ledger.b")
    page = await bus.direct_get(WORKER, multi_last=["worker.ledger.*"])
    assert [message.body for message in page.messages] == [b"second", b"worker.ledger.b"]
    assert await bus.by_sequence(WORKER, 1) is None


async def test_the_first_message_that_matches_is_found_from_a_sequence_on(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.claim.f.a", "flow.refund.g.a")
    for begin, wanted in ((1, "flow.refund.f.a"), (2, "flow.refund.g.a")):
        first = await bus.first_on_leader(FLOW, "flow.refund.*.a", from_sequence=begin)
        assert first is not None
        assert first.subject == wanted
    assert await bus.first_on_leader(FLOW, "flow.refund.*.a", from_sequence=4) is None


async def test_p3_an_expectation_holds_over_all_that_its_filter_matches(bus: Bus) -> None:
    everything = "flow.refund.f.>"
    first = await bus.publish("flow.refund.f.a", b"", expected_sequence=0, expected_filter=everything)
    await store(bus, "flow.refund.g.a")
    second = await bus.publish("flow.refund.f.b", b"", expected_sequence=first, expected_filter=everything)
    with pytest.raises(WrongSequence) as refusal:
        await bus.publish("flow.refund.f.c", b"", expected_sequence=first, expected_filter=everything)
    assert (refusal.value.subject, refusal.value.last_sequence) == ("flow.refund.f.c", second)
    assert await bus.last(FLOW, "flow.refund.f.c") is None


async def test_an_expectation_without_a_filter_is_about_the_subject(bus: Bus) -> None:
    assert await bus.publish("flow.refund.f.a", b"", expected_sequence=0) == 1
    assert await bus.publish("flow.refund.f.b", b"", expected_sequence=0) == 2
    with pytest.raises(WrongSequence) as refusal:
        await bus.publish("flow.refund.f.a", b"", expected_sequence=0)
    assert refusal.value.last_sequence == 1


async def test_an_expectation_of_what_was_never_there_is_refused(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a")
    with pytest.raises(WrongSequence):
        await bus.publish("flow.refund.g.a", b"", expected_sequence=1, expected_filter="flow.refund.g.>")


async def test_a_taken_subject_is_refused_though_the_expectation_holds(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a")
    with pytest.raises(AlreadyStored):
        await bus.publish("flow.refund.f.a", b"", expected_sequence=1, expected_filter="flow.refund.f.>")


async def test_p3_of_racing_answers_with_expectation_zero_one_is_stored(bus: Bus) -> None:
    answers = await asyncio.gather(
        *(
            bus.publish(
                f"flow.refund.f.{kind}.ledger.id.T",
                b"",
                expected_sequence=0,
                expected_filter="flow.refund.f.*.ledger.id.>",
            )
            for kind in ("event", "proposal", "failure")
        ),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers].count(int) == 1
    assert [type(answer) for answer in answers].count(WrongSequence) == 2


async def test_a_message_larger_than_the_broker_takes_is_refused(bus: Bus) -> None:
    with pytest.raises(TooLarge) as refusal:
        await bus.publish("flow.refund.f.a", b"x" * (PAYLOAD + 1))
    assert refusal.value.metadata["limit"] == str(PAYLOAD)
    assert await bus.publish("flow.refund.f.a", b"x" * PAYLOAD) == 1


async def test_what_may_be_said_again_leaves_room_for_it(bus: Bus) -> None:
    with pytest.raises(TooLarge) as refusal:
        await bus.publish("flow.refund.f.event.ledger.i.T", b"x" * (PAYLOAD - ROOM + 1))
    assert refusal.value.metadata["limit"] == str(PAYLOAD - ROOM)
    assert await bus.publish("flow.refund.f.event.ledger.i.T", b"x" * (PAYLOAD - ROOM)) == 1


@pytest.mark.parametrize("subject", ["nowhere.at.all", "flow.refund.with space", "flow.refund.f\r\nPUB x 0\r\n", ""])
async def test_a_subject_that_no_stream_takes_is_refused_and_the_rest_goes_on(bus: Bus, subject: str) -> None:
    with pytest.raises(BrokerUnavailable):
        await bus.publish(subject, b"", timeout=SOON)
    assert await store(bus, "flow.refund.f.a") == [1]


async def test_a_subject_that_is_too_long_is_refused_and_the_rest_goes_on(bus: Bus) -> None:
    with pytest.raises(HandrailError, match="longer than the broker accepts"):
        await bus.publish(f"flow.refund.{'f' * 4000}", b"", timeout=SOON)
    assert await store(bus, "flow.refund.f.a") == [1]


async def test_several_filters_give_each_message_once_in_stream_order(bus: Bus) -> None:
    await store(bus, "flow.refund.g.a", "flow.refund.f.b", "flow.refund.f.a", "flow.other.f.a")
    page = await bus.direct_get(FLOW, multi_last=["flow.refund.f.a", "flow.*.f.>", "flow.refund.h.>"])
    assert subjects(page.messages) == ["flow.refund.f.b", "flow.refund.f.a", "flow.other.f.a"]
    assert page.up_to_sequence == 4
    assert page.pending == 0


async def test_a_read_leaves_out_what_is_older_or_newer_than_asked_for(bus: Bus) -> None:
    await store(bus, *(f"flow.refund.f.{name}" for name in "abcde"))
    page = await bus.direct_get(FLOW, multi_last=["flow.refund.f.>"], from_seq=2, up_to_seq=4)
    assert [message.sequence for message in page.messages] == [2, 3, 4]
    assert page.up_to_sequence == 4


async def test_a_read_that_finds_nothing_new_says_up_to_where_it_looked(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.g.a")
    page = await bus.direct_get(FLOW, multi_last=["flow.refund.f.>"], from_seq=2)
    assert (page.messages, page.up_to_sequence) == ((), 2)


async def test_a_read_whose_filters_match_nothing_is_empty_and_does_not_say_where_it_looked(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a")
    page = await bus.direct_get(FLOW, multi_last=["flow.refund.g.>"])
    assert (page.messages, page.up_to_sequence) == ((), 0)
    assert (await bus.direct_get(QUARANTINE, multi_last=["quarantine.>"])).messages == ()


async def test_more_subjects_than_one_read_gives_are_refused_and_can_be_listed(bus: Bus) -> None:
    stored = [f"flow.refund.f.{number}" for number in range(SUBJECT_LIMIT + 1)]
    await asyncio.gather(*(bus.publish(subject, b"") for subject in stored[:-1]))
    assert len((await bus.direct_get(FLOW, multi_last=["flow.refund.f.>"])).messages) == SUBJECT_LIMIT
    await store(bus, stored[-1])
    with pytest.raises(TooManySubjects):
        await bus.direct_get(FLOW, multi_last=["flow.refund.f.>"])
    info = await bus.request_json("$JS.API.STREAM.INFO.FLOW", {"subjects_filter": "flow.refund.f.>"})
    assert set(info["state"]["subjects"]) == set(stored)
    assert info["total"] == len(stored)


async def test_a_list_of_subjects_has_those_that_match(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.g.a")
    info = await bus.request_json("$JS.API.STREAM.INFO.FLOW", {"subjects_filter": "flow.refund.g.>", "offset": 0})
    assert list(info["state"]["subjects"]) == ["flow.refund.g.a"]
    assert info["state"]["last_seq"] == 2
    nothing = await bus.request_json("$JS.API.STREAM.INFO.FLOW", {"subjects_filter": "flow.refund.h.>"})
    assert not nothing["state"].get("subjects")


async def test_reading_forward_gives_pages_and_what_is_left(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.g.a", "flow.refund.f.b", "flow.refund.f.c")
    first = await bus.read_forward(FLOW, "flow.refund.f.>", from_sequence=0, limit=2)
    assert (subjects(first.messages), first.pending) == (["flow.refund.f.a", "flow.refund.f.b"], 1)
    rest = await bus.read_forward(FLOW, "flow.refund.f.>", from_sequence=first.messages[-1].sequence + 1, limit=2)
    assert (subjects(rest.messages), rest.pending) == (["flow.refund.f.c"], 0)
    end = await bus.read_forward(FLOW, "flow.refund.f.>", from_sequence=5, limit=2)
    assert (end.messages, end.pending, end.up_to_sequence) == ((), 0, 0)


async def test_the_newest_message_is_found_on_a_replica_and_on_the_leader(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.f.b", "flow.refund.g.a")
    for found in (await bus.last(FLOW, "flow.refund.f.>"), await bus.last_on_leader(FLOW, "flow.refund.f.>")):
        assert found is not None
        assert (found.subject, found.sequence) == ("flow.refund.f.b", 2)
    assert await bus.last(FLOW, "flow.refund.h.>") is None
    assert await bus.last_on_leader(FLOW, "flow.refund.h.>") is None


async def test_a_sequence_gives_its_own_message_and_no_other(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.f.b")
    message = await bus.by_sequence(FLOW, 1)
    assert message is not None
    assert message.subject == "flow.refund.f.a"
    assert await bus.by_sequence(FLOW, 3) is None


async def test_a_read_that_has_to_hold_a_sequence_holds_it(bus: Bus) -> None:
    await store(bus, "flow.refund.f.a", "flow.refund.g.a")
    page = await fresh_read.read(bus, FLOW, ["flow.refund.f.>"], at_least=2)
    assert subjects(page.messages) == ["flow.refund.f.a"]
    assert await fresh_read.newest(bus, FLOW, "flow.refund.f.>") == 1
    with pytest.raises(BrokerUnavailable, match="no replica"):
        await fresh_read.read(bus, FLOW, ["flow.refund.f.>"], at_least=3, timeout=SOON)


async def test_a_timer_that_is_armed_again_is_there_once_as_it_was_armed_last(bus: Bus) -> None:
    await arm(bus, "a", now(bus) + LATER)
    newer = await arm(bus, "a", now(bus) + 2 * LATER)
    page = await bus.read_forward(TIMER, "timer.>", from_sequence=1, limit=100)
    assert [(message.subject, message.sequence) for message in page.messages] == [("timer.refund.f.a", newer)]
    assert not await has_fired(bus, "a")


async def test_a_timer_that_is_cleared_is_gone_and_can_be_cleared_again(bus: Bus) -> None:
    for name in ("a", "b"):
        await arm(bus, name, now(bus) + LATER)
    answers = [await bus.request_json("$JS.API.STREAM.PURGE.TIMER", {"filter": "timer.refund.f.a"}) for _ in range(2)]
    assert [answer["purged"] for answer in answers] == [1, 0]
    assert await armed(bus) == ["timer.refund.f.b"]


async def test_a_timer_fires_when_it_is_due_and_is_gone_then(bus: Bus) -> None:
    due = now(bus) + SOON
    await arm(bus, "a", due)
    await arm(bus, "b", due + LATER)
    if isinstance(bus, MemoryBus):
        assert not await has_fired(bus, "a")
        bus.now = due

    async def fired() -> bool:
        return await has_fired(bus, "a")

    await eventually(fired)
    assert await armed(bus) == ["timer.refund.f.b"]
