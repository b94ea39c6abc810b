"""P6: nobody settles, delays or takes what was handed out to somebody else, in either form of the broker's subjects."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from itertools import product
from pathlib import Path

import pytest

from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.bus.nkey import public_key
from handrail.mesh.streams import FLOW, TIMER, ensure_streams
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, agent_durable
from handrail.mesh.wire.subjects import timer_subject
from handrail.v1.template_pb2 import Step
from tests.support.accounts import asked_and_granted, configuration, connect, seed
from tests.support.hostile import ACKS, acks_like
from tests.support.nats_server import NatsServer, running_server
from tests.support.raw_client import raw_client
from tests.support.waiting import eventually, until

FLOW_ID = "a" * 32
Place = tuple[str, str]
OWN: Place = (FLOW, agent_durable("refunds"))
TIMERS: Place = (TIMER, DUE)
OTHERS: tuple[Place, ...] = ((FLOW, agent_durable("ledger")), (FLOW, DECIDE), (FLOW, TRACK), TIMERS)
STOLEN = "_INBOX_refunds.stolen"

TEMPLATE = asked_and_granted(Step(name="pay", agent="ledger", after=["shop.v1.Granted"], emits=["shop.v1.Paid"]))


def boundless(user_name: str) -> str:
    """The broker's users; this one may publish everything that its account lets through."""
    text = configuration(TEMPLATE)
    accounts = json.loads(text[text.index("{") :])
    for account in accounts.values():
        for user in account["users"]:
            if user["nkey"] == public_key(seed(user_name)):
                user["permissions"]["publish"]["allow"] = [">"]
    return f"{text[: text.index('accounts:')]}accounts: {json.dumps(accounts)}"


FORMS = {"v1": "", "v2": "feature_flags { js_ack_fc_v2: true }"}


@asynccontextmanager
async def house(folder: Path, form: str, *, may_all: str = "") -> AsyncIterator[tuple[NatsServer, NatsBus]]:
    """A broker with the durables of everybody, two messages in each, and a bus of the coordinator's."""
    with running_server(folder / "nats", accounts=boundless(may_all), extra=FORMS[form]) as server:
        async with await connect(server, "coordinator") as bus:
            await ensure_streams(bus)
            for stream, durable in (OWN, *OTHERS):
                config = {"durable_name": durable, "ack_policy": "explicit", "filter_subject": FILTERS[stream]}
                request = {"stream_name": stream, "config": config}
                await bus.request_json(f"$JS.API.CONSUMER.CREATE.{stream}.{durable}", request)
            for number in range(2):
                await bus.publish(f"flow.refund.{FLOW_ID}.event.refunds.{number:032x}.shop.v1.Granted", b"x")
                due = f"due.refund.{FLOW_ID}.t{number}"
                at = {"Nats-Schedule": "@at 2020-01-01T00:00:00Z", "Nats-Schedule-Target": due}
                await bus.publish(timer_subject("refund", FLOW_ID, f"t{number}"), b"x", headers=at)
            yield server, bus


FILTERS = {FLOW: "flow.>", TIMER: "due.>"}


async def take(server: NatsServer, place: Place) -> Delivery:
    """The next message of a durable, taken by who may, who then goes away without a word."""
    stream, durable = place
    user = durable.removeprefix("agent-") if durable.startswith("agent-") else "coordinator"
    got: list[Delivery] = []
    async with await connect(server, user) as bus:
        pull = await bus.pull(stream, durable, in_flight=1, on_delivery=got.append)
        await until(lambda: got)
        await pull.stop()
    return got[0]


async def pending(bus: NatsBus, place: Place) -> int:
    """How many messages of a durable are handed out and not settled."""
    info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{place[0]}.{place[1]}")
    return int(info["num_ack_pending"])


async def attack(server: NatsServer, victims: Sequence[Delivery]) -> list[bytes]:
    """Everything that `refunds` can say about the deliveries of others; what it got for it."""
    async with raw_client(server.url, user="refunds", nkey_seed=seed("refunds")) as thief:
        for victim in victims:
            for subject, verb in product(sorted(acks_like(victim.reply, own=OWN)), ACKS):
                thief.send(subject, verb, reply=STOLEN)
        await thief.request("$JS.API.STREAM.INFO.FLOW")
        return [body for subject, body in await thief.heard() if subject == STOLEN.encode()]


@pytest.mark.parametrize("form", FORMS)
async def test_an_agent_can_not_answer_the_deliveries_of_others_p6(tmp_path: Path, form: str) -> None:
    async with house(tmp_path, form) as (server, bus):
        taken = [await take(server, other) for other in OTHERS]
        assert await attack(server, taken) == []
        await all_is_as_it_was(server, bus, OTHERS, taken)


@pytest.mark.parametrize("form", FORMS)
async def test_whatever_an_agent_may_publish_timers_are_out_of_its_accounts_reach_p6(tmp_path: Path, form: str) -> None:
    async with house(tmp_path, form, may_all="refunds") as (server, bus):
        taken = await take(server, TIMERS)
        assert await attack(server, [taken]) == []
        await all_is_as_it_was(server, bus, [TIMERS], [taken])


async def all_is_as_it_was(
    server: NatsServer, bus: NatsBus, places: Sequence[Place], taken: Sequence[Delivery]
) -> None:
    for place, delivery in zip(places, taken, strict=True):
        assert (place, await pending(bus, place)) == (place, 1)
        following = await take(server, place)
        assert (place, following.sequence > delivery.sequence, following.delivered) == (place, True, 1)


@pytest.mark.parametrize("form", FORMS)
async def test_an_agent_answers_its_own_deliveries_in_every_way(tmp_path: Path, form: str) -> None:
    async with house(tmp_path, form) as (server, bus), await connect(server, "refunds") as agent:
        seen: set[tuple[int, int]] = set()

        def answer(delivery: Delivery) -> None:
            seen.add((delivery.sequence, delivery.delivered))
            delivery.in_progress()
            match delivery.sequence, delivery.delivered:
                case 1, 1:
                    delivery.nak()
                case 1, 2:
                    delivery.nak(timedelta(milliseconds=20))
                case 1, _:
                    delivery.ack()
                case _:
                    delivery.term("enough")

        pull = await agent.pull(*OWN, in_flight=1, on_delivery=answer)
        await until(lambda: seen == {(1, 1), (1, 2), (1, 3), (2, 1)})

        async def settled() -> bool:
            return not await pending(bus, OWN)

        await eventually(settled)
        await pull.stop()
    assert seen == {(1, 1), (1, 2), (1, 3), (2, 1)}, "what is settled comes no more"
