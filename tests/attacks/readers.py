"""A hostile reader, or a thief of its nkey, reads what is not its own, or disturbs another reader."""

from __future__ import annotations

from contextlib import aclosing
from datetime import timedelta

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.readers import ensure_reader
from handrail.mesh.streams.reading import read
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import OTHER_READER, READER, Installation

SOON = timedelta(seconds=5)


async def refuse_to_listen(reader: NatsBus, *subjects: str) -> None:
    """Raises Succeeded if the broker lets it listen to any of these."""
    for subject in subjects:
        try:
            await reader.subscribe(subject, lambda message: None)
        except BrokerPermission:
            continue
        succeeded(f"it may listen to {subject}")


async def refuse_to_ask(reader: NatsBus, *requests: str) -> None:
    """Raises Succeeded if the broker takes any of these requests."""
    for request in requests:
        try:
            await reader.request_json(f"$JS.API.{request}", {"seq": 1}, timeout=SOON)
        except BrokerPermission:
            continue
        succeeded(f"it may ask {request}")


@attack(
    "117",
    "a reader reads, hears or harms what is not its own",
    mutant=("p6_a_reader_hears_its_account", "p6_a_reader_has_every_durable"),
)
async def pry(target: Installation) -> str:
    """The hostile reader may read "loan"; the flow is one of "refund", which the other one reads."""
    async with target.bus_as("setup") as setup:
        for reader in (READER, OTHER_READER):
            await ensure_reader(setup, reader)
    async with (
        target.people() as people,
        target.bus_as(READER.name) as victim,
        target.bus_as(OTHER_READER.name) as hostile,
    ):
        mine, others = f"FLOW.reader-{OTHER_READER.name}", f"FLOW.reader-{READER.name}"
        await refuse_to_listen(hostile, "seen.refund.>", "seen.>", "flow.>", f"_INBOX_{READER.name}.>", ">")
        await refuse_to_ask(hostile, *(f"CONSUMER.{verb}.{others}" for verb in ("RESET", "MSG.NEXT", "INFO")))
        await refuse_to_ask(hostile, *(f"CONSUMER.{verb}.{mine}" for verb in ("CREATE", "DELETE", "PAUSE")))
        await refuse_to_ask(hostile, f"DIRECT.GET.{FLOW}", f"STREAM.MSG.GET.{FLOW}", f"STREAM.INFO.{FLOW}")
        flow_id = await target.flow_from_start(people)
        forged = f"seen.refund.{flow_id}.event.ledger.{'f' * 32}.payments.v1.RefundPaid"
        for reply in (forged, forged.replace("seen", "flow", 1)):
            hostile.connection.send(f"$JS.API.CONSUMER.RESET.{mine}", b'{"seq":1}', reply=reply)
            hostile.connection.send("$JS.API.INFO", b"", reply=reply, headers={"Nats-Trace-Dest": reply})
        await people.until_status(flow_id, "COMPLETED")
        stored = [each.sequence for each in await people.events(flow_id)]
        async with aclosing(read(victim, READER.name, after=stored[0] - 1)) as pulled:
            found = [(await anext(pulled)).sequence for _ in stored]
    return refused(
        "the broker refuses each request; the other reader got what was stored, and nothing else",
        unless=found != stored and f"stored {stored}, read {found}",
    )
