"""Floods of the quarantine."""

from __future__ import annotations

import asyncio

from handrail.mesh.streams.streams import QUARANTINE_BYTES
from handrail.v1 import quarantine_service_pb2 as pb
from tests.attacks.attack import attack, refused
from tests.attacks.installation import Installation
from tests.support.people import People
from tests.support.waiting import eventually

LARGE = b"x" * 900_000
AT_ONCE = 16


async def kept(people: People) -> set[str]:
    """The flows whose messages are in any quarantine."""
    found: set[str] = set()
    request = pb.ListQuarantinedRequest(page_size=100)
    while True:
        page = await people.quarantine.ListQuarantined(request, metadata=people.by("vera"))
        found.update(message.flow_id for message in page.messages)
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


@attack(
    "22",
    "one agent fills the disk through QUARANTINE",
    fresh=True,
    mutant=("p5_a_quarantine_has_no_limit", "p5_one_quarantine_takes_all_reports"),
)
async def flood(target: Installation) -> str:
    """Records of its own, and broken messages that the coordinator has to report, until both fill a quarantine."""
    told, reported = "a" * 32, "b" * 32
    async with (
        target.people() as people,
        target.bus_as("ledger") as ledger,
        target.bus_as("refunds") as refunds,
        target.bus_as("admin") as admin,
    ):
        await ledger.publish(f"quarantine.refund.{told}.ledger.refunds.{told}", b"what the ledger tells")
        await ledger.publish(f"flow.refund.{reported}.failure.ledger.{reported}.handrail.v1.StepFailed", b"broken")
        await eventually(lambda: kept(people), lambda found: found >= {told, reported})

        number = 2 * QUARANTINE_BYTES // len(LARGE)
        own = [f"quarantine.refund.-.refunds.ledger.{each:032x}" for each in range(number)]
        broken = [
            f"flow.refund.{each:032x}.failure.refunds.{each:032x}.handrail.v1.StepFailed" for each in range(number)
        ]
        for start in range(0, 2 * number, AT_ONCE):
            batch = (own + broken)[start : start + AT_ONCE]
            await asyncio.gather(*(refunds.publish(subject, LARGE) for subject in batch))
        await target.until_settled("decide")

        names = (await admin.request_json("$JS.API.STREAM.NAMES", {"subject": "quarantine.>"}))["streams"]
        infos = {name: await admin.request_json(f"$JS.API.STREAM.INFO.{name}") for name in names}
        too_large = {
            name: info["state"]["bytes"] for name, info in infos.items() if info["state"]["bytes"] > QUARANTINE_BYTES
        }
        lost = {told, reported} - await kept(people)
    return refused(
        f"{2 * number} records of 900 kB: its own quarantine lost its oldest, and no other a message",
        unless=too_large or lost,
    )
