"""A hostile agent slips answers into another agent's inbox."""

from __future__ import annotations

import asyncio
import json

from handrail.mesh.streams import FLOW
from tests.attacks.attack import attack, refused
from tests.attacks.installation import Installation
from tests.support.raw_client import RawClient

READS = 150
AHEAD = 8


class Slipper:
    """Has the broker answer reads of one flow into an inbox, under the names that replies to come may have."""

    def __init__(self, thief: RawClient, *, inbox: str, flow_id: str) -> None:
        self._thief = thief
        self._inbox = inbox
        self._body = json.dumps({"multi_last": [f"flow.refund.{flow_id}.>"]}).encode()
        self.at = 0
        """How many reads the victim has made: who counts its own reads can tell."""

    async def slip(self) -> None:
        """Goes on until it is cancelled."""
        self._to("*", ">", "")
        while True:
            for number in range(self.at, self.at + AHEAD):
                self._to(f"{number}", f"{number:016x}")
            await self._thief.heard()

    def _to(self, *names: str) -> None:
        for name in names:
            self._thief.send(f"$JS.API.DIRECT.GET.{FLOW}", self._body, reply=f"{self._inbox}{name}")


@attack(
    "43", "enrichment has the broker answer ledger's reads of flow A with flow B", mutant="p6_replies_can_be_guessed"
)
async def slip_answers(target: Installation) -> str:
    """The inbox is given away, as the broker's monitoring port may do: the names of the replies protect the reader."""
    async with target.people() as people, target.bus_as("ledger") as ledger, target.raw_as("enrichment") as thief:
        asked, other = [await target.flow_from_start(people) for _ in range(2)]
        for flow_id in (asked, other):
            await people.until_status(flow_id, "COMPLETED")
        slipper = Slipper(thief, inbox=ledger.connection.inbox.subject.removesuffix("*"), flow_id=other)
        slipping = asyncio.create_task(slipper.slip())
        wrong = 0
        try:
            for slipper.at in range(READS):
                page = await ledger.direct_get(FLOW, multi_last=[f"flow.refund.{asked}.>"])
                wrong += {message.subject.split(".")[2] for message in page.messages} != {asked}
        finally:
            slipping.cancel()
    return refused(f"{READS} reads of the flow gave that flow", unless=wrong)
