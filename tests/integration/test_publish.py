"""Publishing over the bus to a real server."""

import asyncio
from datetime import timedelta

import pytest

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import (
    AlreadyStored,
    BrokerPermission,
    BrokerUnavailable,
    HandrailError,
    StreamFull,
    TooLarge,
    WrongSequence,
)
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.conftest import Connect
from tests.support.nats_server import NatsServer, running_server
from tests.support.waiting import Outcomes, eventually, until

SOON = timedelta(seconds=30)


def accounts(*allowed: str, password: str = "secret") -> str:
    """The coordinator may do everything, the agent `ledger` may publish what is allowed."""
    listed = ", ".join(f'"{subject}"' for subject in allowed)
    return f"""
accounts {{ APP {{ jetstream: enabled, users: [
  {{ user: "coordinator", password: "secret" }},
  {{ user: "ledger", password: "{password}", permissions: {{
      publish: {{ allow: [{listed}] }}, subscribe: {{ allow: ["_INBOX_ledger.>"] }} }} }}
] }} }}
"""


ACCOUNTS = accounts("flow.refund.*.event.ledger.>")


async def test_p3_of_many_publishers_on_one_subject_one_is_stored(
    nats_server: NatsServer, bus: NatsBus, connect: Connect
) -> None:
    others = [await connect(nats_server.settings(f"agent{number}")) for number in range(5)]
    for attempt in range(50):
        answers = await asyncio.gather(
            *(each.publish(f"flow.refund.{attempt}", each.name.encode()) for each in (bus, *others)),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert sum(isinstance(answer, AlreadyStored) for answer in answers) == 5


async def test_p3_of_different_outcomes_with_expectation_zero_one_is_stored(bus: NatsBus) -> None:
    for attempt in range(50):
        answers = await asyncio.gather(
            *(
                bus.publish(
                    f"flow.refund.{attempt}.{kind}.ledger.id.T",
                    b"",
                    expected_sequence=0,
                    expected_filter=f"flow.refund.{attempt}.*.ledger.id.>",
                )
                for kind in ("event", "proposal", "failure")
            ),
            return_exceptions=True,
        )
        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert sum(isinstance(answer, WrongSequence) for answer in answers) == 2


async def test_a_refused_expectation_tells_the_last_sequence(bus: NatsBus) -> None:
    first = await bus.publish("flow.refund.f.a", b"", expected_sequence=0, expected_filter="flow.refund.f.>")
    second = await bus.publish("flow.refund.f.b", b"", expected_sequence=first, expected_filter="flow.refund.f.>")
    with pytest.raises(WrongSequence) as refusal:
        await bus.publish("flow.refund.f.c", b"", expected_sequence=first, expected_filter="flow.refund.f.>")
    assert refusal.value.last_sequence == second


async def test_headers_are_stored(bus: NatsBus) -> None:
    await bus.publish("flow.refund.f.a", b"", headers={"traceparent": "00-aa-bb-01"})
    message = await bus.last(FLOW, "flow.refund.f.a")
    assert message is not None
    assert message.headers["traceparent"] == "00-aa-bb-01"


async def test_a_message_larger_than_the_broker_takes_is_refused_before_it_is_sent(bus: NatsBus) -> None:
    with pytest.raises(TooLarge) as refusal:
        await bus.publish("flow.refund.f.a", b"x" * (bus.connection.max_payload + 1))
    assert refusal.value.metadata["limit"] == str(bus.connection.max_payload)
    assert await bus.publish("flow.refund.f.a", b"x" * bus.connection.max_payload) == 1


async def test_a_subject_that_is_none_is_refused_and_the_rest_goes_on(bus: NatsBus) -> None:
    with pytest.raises(HandrailError, match="can't send"):
        await bus.publish("flow.refund.with space\r\nPUB x 0\r\n", b"")
    assert await bus.publish("flow.refund.f.a", b"") == 1


async def limit_flow(bus: NatsBus, **limits: int) -> None:
    """Limits FLOW, as an operator may."""
    config = (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["config"]
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{FLOW}", {**config, **limits})


async def test_a_full_stream_refuses_and_goes_on_when_there_is_room(bus: NatsBus) -> None:
    await limit_flow(bus, max_msgs=3)
    for number in range(3):
        await bus.publish(f"flow.refund.{number}", b"kept")
    for _ in range(2):
        with pytest.raises(StreamFull):
            await bus.publish("flow.refund.3", b"")
    with pytest.raises(AlreadyStored):
        await bus.publish("flow.refund.2", b"")
    await limit_flow(bus, max_msgs=4)
    assert await bus.publish("flow.refund.3", b"") == 4
    assert len((await bus.direct_get(FLOW, multi_last=["flow.>"])).messages) == 4


async def test_a_stream_full_of_bytes_refuses(bus: NatsBus) -> None:
    await limit_flow(bus, max_bytes=4096)
    answers = [await _outcome(bus, f"flow.refund.{number}", b"x" * 1000) for number in range(10)]
    stored = [answer for answer in answers if isinstance(answer, int)]
    assert 0 < len(stored) < 10
    assert all(isinstance(answer, StreamFull) for answer in answers[len(stored) :])


async def _outcome(bus: NatsBus, subject: str, body: bytes) -> int | HandrailError:
    try:
        return await bus.publish(subject, body)
    except HandrailError as error:
        return error


async def test_p6_a_publish_without_permission_is_refused_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        coordinator = server.settings("coordinator", user="coordinator", password="secret")
        ledger = server.settings("ledger", user="ledger", password="secret")
        async with await NatsBus.connect(coordinator) as admin, await NatsBus.connect(ledger) as agent:
            await ensure_streams(admin)
            # Without the correlation of refusals this would end in a time-out, a day later than the test's.
            with pytest.raises(BrokerPermission) as refusal:
                await agent.publish("flow.refund.F.released.ledger.i.T", b"", timeout=timedelta(days=1))
            assert refusal.value.metadata["subject"] == "flow.refund.F.released.ledger.i.T"
            assert await agent.publish("flow.refund.F.event.ledger.i.T", b"") == 1


async def test_a_subscription_without_permission_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        ledger = server.settings("ledger", user="ledger", password="secret")
        async with await NatsBus.connect(ledger) as agent:
            with pytest.raises(BrokerPermission, match=r"flow\.>"):
                await agent.subscribe("flow.>", lambda _: None)


async def test_only_the_refused_of_many_publishes_fail(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcomes = Outcomes()
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        coordinator = server.settings("coordinator", user="coordinator", password="secret")
        ledger = server.settings("ledger", user="ledger", password="secret")
        async with await NatsBus.connect(coordinator) as admin, await NatsBus.connect(ledger) as agent:
            await ensure_streams(admin)
            allowed = [f"flow.refund.{number}.event.ledger.i.T" for number in range(100)]
            refused = [f"flow.refund.{number}.event.Other.i.T" for number in range(100)]
            for subject in (name for pair in zip(allowed, refused, strict=True) for name in pair):
                agent.publish_nowait(subject, b"", outcomes.of(subject))
            await until(lambda: len(outcomes.told) == 200)
    assert all(isinstance(outcomes.told[subject], int) for subject in allowed)
    assert all(isinstance(outcomes.told[subject], BrokerPermission) for subject in refused)
    assert not outcomes.twice


async def test_permissions_that_are_added_later_count_at_once(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        coordinator = server.settings("coordinator", user="coordinator", password="secret")
        ledger = server.settings("ledger", user="ledger", password="secret")
        async with await NatsBus.connect(coordinator) as admin, await NatsBus.connect(ledger) as agent:
            await ensure_streams(admin)
            server.write_config(accounts=accounts("flow.refund.*.event.ledger.>", "flow.audit.*.event.ledger.>"))
            server.reload()

            async def is_allowed() -> bool:
                return isinstance(await _outcome(agent, "flow.audit.F.event.ledger.i.T", b""), int | AlreadyStored)

            await eventually(is_allowed)
            assert not agent.closed.is_set()


async def test_a_user_that_is_shut_out_is_told_so(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        ledger = server.settings("ledger", user="ledger", password="secret")
        async with await NatsBus.connect(ledger) as agent:
            publishing = asyncio.create_task(agent.publish("flow.refund.F.event.ledger.i.T", b"", timeout=SOON))
            server.write_config(accounts=accounts(password="another"))
            server.reload()
            await asyncio.wait_for(agent.closed.wait(), 30)
            with pytest.raises(BrokerUnavailable, match="authorization"):
                await publishing
            with pytest.raises(BrokerUnavailable, match="authorization"):
                await agent.publish("flow.refund.F.event.ledger.i.T", b"")
            with pytest.raises(BrokerUnavailable, match="authorization"):
                await agent.request_json("$JS.API.INFO")


async def test_wrong_credentials_are_refused_without_waiting(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running_server(tmp_path_factory.mktemp("nats"), accounts=ACCOUNTS) as server:
        settings = server.settings("ledger", user="ledger", password="wrong")
        with pytest.raises(BrokerPermission, match="ledger"):
            await NatsBus.connect(settings)


async def test_a_broker_that_is_not_there_is_unavailable() -> None:
    settings = BusSettings(servers=("nats://127.0.0.1:1",), name="ledger", connect_timeout=timedelta(milliseconds=300))
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1 within"):
        await NatsBus.connect(settings)


async def test_a_subject_that_no_stream_takes_is_tried_until_the_timeout(bus: NatsBus) -> None:
    with pytest.raises(BrokerUnavailable, match="no stream has this subject"):
        await bus.publish("nowhere.at.all", b"", timeout=timedelta(milliseconds=300))


async def test_a_stream_that_comes_in_time_takes_the_message(nats_server: NatsServer, connect: Connect) -> None:
    bus = await connect(nats_server.settings())
    publishing = asyncio.create_task(bus.publish("flow.refund.f.a", b"", timeout=SOON))
    await asyncio.sleep(0)
    await ensure_streams(bus)
    assert await publishing == 1


async def test_p3_nothing_is_lost_or_stored_twice_when_the_broker_is_killed_under_load(
    nats_server: NatsServer, bus: NatsBus
) -> None:
    outcomes = Outcomes()
    subjects = [f"flow.refund.{number}" for number in range(4000)]
    for number, subject in enumerate(subjects):
        bus.publish_nowait(subject, subject.encode(), outcomes.of(subject), timeout=timedelta(seconds=60))
        if number == 2000:
            await until(lambda: len(outcomes.told) > 100)
            nats_server.kill()
    nats_server.start()
    await until(lambda: len(outcomes.told) == len(subjects), within=60)
    assert not outcomes.twice
    # "Already there" is one whose first answer got lost; it is in the stream.
    assert all(isinstance(outcome, int | AlreadyStored) for outcome in outcomes.told.values())
    sequences = [outcome for outcome in outcomes.told.values() if isinstance(outcome, int)]
    assert len(set(sequences)) == len(sequences)
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    assert info["state"]["messages"] == len(subjects)


async def test_a_publish_while_the_broker_is_away_is_stored_when_it_is_back(
    nats_server: NatsServer, bus: NatsBus
) -> None:
    nats_server.kill()
    publishing = asyncio.create_task(bus.publish("flow.refund.f.a", b"", timeout=SOON))
    await until(lambda: not bus.connection.client.is_connected)
    nats_server.start()
    assert await publishing == 1


async def test_a_broker_that_stays_away_is_unavailable(nats_server: NatsServer, bus: NatsBus) -> None:
    nats_server.kill()
    with pytest.raises(BrokerUnavailable):
        await bus.publish("flow.refund.f.a", b"", timeout=timedelta(milliseconds=300))


async def test_an_answer_that_got_lost_in_a_silent_broker_is_asked_for_again(
    nats_server: NatsServer, bus: NatsBus
) -> None:
    nats_server.pause()
    publishing = asyncio.create_task(bus.publish("flow.refund.f.a", b"", timeout=SOON))
    await asyncio.sleep(0)
    nats_server.resume()
    assert await publishing == 1


async def test_what_waits_when_the_bus_closes_is_told_so(bus: NatsBus) -> None:
    outcomes = Outcomes()
    bus.publish_nowait("nowhere.at.all", b"", outcomes.of("a"), timeout=timedelta(days=1))
    await bus.close()
    assert isinstance(outcomes.told["a"], BrokerUnavailable)
    with pytest.raises(BrokerUnavailable, match="closed"):
        await bus.publish("flow.refund.f.b", b"")


async def test_the_reasons_of_errors_are_those_of_the_api(bus: NatsBus) -> None:
    await bus.publish("flow.refund.f.a", b"")
    with pytest.raises(HandrailError) as refusal:
        await bus.publish("nowhere", b"", timeout=timedelta(milliseconds=100))
    assert refusal.value.reason == ErrorReason.ERROR_REASON_BROKER_UNAVAILABLE
