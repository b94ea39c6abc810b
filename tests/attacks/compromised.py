"""Whoever has the coordinator's nkey ends, changes or empties what the broker keeps. What is possible is in open.py."""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from datetime import timedelta
from itertools import product

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import BrokerPermission, HandrailError
from handrail.mesh.permissions import ADMIN, RETENTION, VISIBILITY
from handrail.mesh.streams import FLOW, IRREPLACEABLE, TIMER, stream_configs
from handrail.mesh.streams.streams import stream_config
from handrail.mesh.wire.subjects import COORDINATOR
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import Installation
from tests.support.mesh import COORDINATORS
from tests.support.people import name_of

SOON = timedelta(seconds=5)

FORGETFUL = {"max_age": 1_000_000_000, "duplicate_window": 1_000_000_000}
"""A stream that forgets each message after a second."""


@attack(
    "106",
    "the coordinator's password deletes, purges or rewrites what happened",
    mutant="p2_the_coordinator_deletes_what_happened",
)
async def delete(target: Installation) -> str:
    """Whoever has the password may still do harm: docs/security.md says which."""
    async with target.bus_as(COORDINATOR) as bus:
        for verb in ("STREAM.DELETE", "STREAM.PURGE", "STREAM.MSG.DELETE"):
            try:
                await bus.request_json(f"$JS.API.{verb}.{FLOW}", {"seq": 1}, timeout=SOON)
            except BrokerPermission:
                continue
            succeeded(f"{verb} is allowed")
    return "the broker refuses to delete, purge and overwrite"


def changed(verb: str, stream: str) -> tuple[str, dict[str, object]]:
    """A request that would end or empty a stream, or have it forget."""
    forgets = {**stream_config(stream), "name": stream, **FORGETFUL}
    return f"$JS.API.STREAM.{verb}.{stream}", {"UPDATE": forgets, "MSG.DELETE": {"seq": 1}}.get(verb, {})


@attack(
    "24a",
    "the coordinator's password asks for an update, purge or end of a stream",
    mutant="p2_run_time_updates_streams",
)
async def forget(target: Installation) -> str:
    async with target.people() as people, target.bus_as(COORDINATOR) as bus:
        flow_id = await target.flow_from_start(people)
        await people.until_status(flow_id, "COMPLETED")
        before = [await config_and_first(bus, stream) for stream in stream_configs()]
        verbs = ("UPDATE", "DELETE", "PURGE", "MSG.DELETE", "RESTORE")
        for stream, verb in product(stream_configs(), verbs):
            if (stream, verb) == (TIMER, "PURGE"):
                continue  # it clears timers
            subject, body = changed(verb, stream)
            try:
                await bus.request_json(subject, body, timeout=SOON)
            except BrokerPermission:
                continue
            succeeded(f"{subject} is allowed")
        after = [await config_and_first(bus, stream) for stream in stream_configs()]
        flow = await people.flow(flow_id)
        return refused(
            f"the broker refuses {', '.join(verbs)} of every stream",
            unless=(after != before and after) or (name_of(flow.status) != "COMPLETED" and flow),
        )


async def config_and_first(bus: NatsBus, stream: str) -> tuple[object, object]:
    """The configuration of a stream, and its first sequence, which grows when the oldest message goes."""
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{stream}")
    return info["config"], info["state"]["first_seq"] if stream in IRREPLACEABLE else 0


@attack(
    "24b",
    "the coordinator's password deletes, pauses, resets or moves a durable",
    mutant="p7_run_time_pauses_durables",
)
async def stop_deliveries(target: Installation) -> str:
    async with target.people() as people, target.bus_as(COORDINATOR) as bus:
        places = {**COORDINATORS, "agent-ledger": FLOW}
        for verb, (durable, stream) in product(("DELETE", "PAUSE", "RESET", "LEADER.STEPDOWN"), places.items()):
            try:
                await bus.request_json(
                    f"$JS.API.CONSUMER.{verb}.{stream}.{durable}", {"pause_until": "2999-01-01T00:00:00Z"}, timeout=SOON
                )
            except BrokerPermission:
                continue
            succeeded(f"{verb} of {durable} is allowed")
        flow_id = await target.flow_from_start(people)
        await people.until_status(flow_id, "COMPLETED")
    return "the broker refuses each of them, and a refund is paid"


@attack(
    "24",
    "the coordinator's nkey has the broker itself update a stream, or create one that does",
    mutant="p2_the_coordinator_is_where_the_streams_are",
)
async def update_by_an_answer(target: Installation) -> str:
    """The broker publishes an answer on any reply subject, a delivery wherever its consumer says, and what it stores
    once more wherever its stream says.
    """
    update, create = f"$JS.API.STREAM.UPDATE.{FLOW}", "$JS.API.STREAM.CREATE.OTHER"
    async with target.bus_as(COORDINATOR) as bus, target.bus_as(ADMIN) as admin:
        before = await config_and_first(admin, FLOW)
        forgets = {**(await admin.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["config"], **FORGETFUL}
        other = {"name": "OTHER", "subjects": ["other"], "republish": {"src": "other", "dest": update}}
        for asks, body in ((update, forgets), (create, other)):
            carrier = f"flow.refund.{secrets.token_hex(16)}.vote.coordinator.{secrets.token_hex(16)}.odd"
            sequence = await bus.publish(carrier, json.dumps(body).encode())
            await have_it_published(bus, carrier, sequence, asks)
        for created in (other, {**other, "name": "QUARANTINE_other"}, {"name": "OTHER", "mirror": {"name": "KEY"}}):
            with suppress(BrokerPermission):
                await bus.request_json(f"$JS.API.STREAM.CREATE.{created['name']}", created, timeout=SOON)
                succeeded(f"{created['name']} is created")
        await bus.connection.flush(SOON)
        await asyncio.sleep(1)  # nothing says that an answer was not taken for a request
        names = (await admin.request_json("$JS.API.STREAM.NAMES"))["streams"]
        after = await config_and_first(admin, FLOW)
    return refused(
        "no answer and no delivery counts as a request, and no other stream is created",
        unless=("OTHER" in names and names) or (after != before and after),
    )


async def have_it_published(bus: NatsBus, subject: str, sequence: int, asks: str) -> None:
    """Have the broker publish a message of FLOW on a subject of the JetStream API, in every way."""
    for asked, said in (
        (f"$JS.API.DIRECT.GET.{FLOW}.{subject}", {}),
        (f"$JS.API.DIRECT.GET.{FLOW}", {"seq": sequence}),
        (f"$JS.API.DIRECT.GET.{FLOW}", {"multi_last": [subject]}),
        (f"$JS.API.STREAM.MSG.GET.{FLOW}", {"seq": sequence}),
    ):
        bus.connection.send(asked, json.dumps(said).encode() if said else b"", reply=asks)
    short = {"ack_policy": "none", "filter_subject": subject, "inactive_threshold": 60_000_000_000}
    for name, more in (("pulled", {}), ("pushed", {"deliver_subject": asks})):
        config = {**short, **more, "name": f"{name}-{sequence}"}
        with suppress(HandrailError):
            asked = f"$JS.API.CONSUMER.CREATE.{FLOW}.{config['name']}"
            await bus.request_json(asked, {"stream_name": FLOW, "config": config})
    bus.connection.send(f"$JS.API.CONSUMER.MSG.NEXT.{FLOW}.pulled-{sequence}", b"1", reply=asks)


@attack("24e", "somebody but retention purges FLOW, or retention another stream", mutant="p2_visibility_purges")
async def purge(target: Installation) -> str:
    """FLOW can be purged, so only permissions keep it whole."""
    others = [*stream_configs(), *(f"QUARANTINE_{agent}" for agent in ("refunds", "ledger"))]
    tried = [("refunds", FLOW), ("ledger", FLOW), (COORDINATOR, FLOW), (VISIBILITY, FLOW), ("viewer", FLOW)]
    tried += [("setup", FLOW), *((RETENTION, stream) for stream in others if stream != FLOW)]
    async with target.bus_as(ADMIN) as admin:
        before = [await state_of(admin, stream) for stream in IRREPLACEABLE]
        for user, stream in tried:
            async with target.bus_as(user) as bus:
                with suppress(BrokerPermission):
                    await bus.request_json(f"$JS.API.STREAM.PURGE.{stream}", {}, timeout=SOON)
                    succeeded(f"{user} purges {stream}")
        after = [await state_of(admin, stream) for stream in IRREPLACEABLE]
    return refused("the broker refuses each of them", unless=after != before and after)


async def state_of(bus: NatsBus, stream: str) -> object:
    """What tells that nothing of a stream is gone."""
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{stream}")
    return info["state"]["first_seq"], info["state"].get("num_deleted", 0)
