"""The agent that reads the bank's chargebacks and begins a flow for each."""

import asyncio
import logging

from demos.payments import settings
from demos.payments.chargebacks import Chargeback, Skipped, read_chargebacks
from handrail.agents import Agent
from handrail.mesh.errors import BrokerUnavailable, StreamFull

FLOW_TYPE = "refund"

# Seconds before the next try if the broker is unreachable or full.
PATIENCE = 1.0

agent = Agent("detection")
logger = logging.getLogger(__name__)


@agent.source
async def feed() -> None:
    """Reads the file once and begins a flow for each chargeback; reports and skips malformed lines.

    After a restart it reads from the beginning: a chargeback that has a flow gets no second one.
    """
    path = settings.chargebacks_path()
    if path is None:
        logger.info("%s is not set: no file to read", settings.CHARGEBACKS)
        return
    pause = 1 / settings.chargebacks_per_second()
    begun = known = skipped = 0
    for found in read_chargebacks(path):
        if isinstance(found, Skipped):
            skipped += 1
            logger.warning("%s, line %d is skipped: %s", path, found.line, found.reason)
        elif await _begin(found):
            begun += 1
            await asyncio.sleep(pause)
        else:
            known += 1
    logger.info("%s: %d flows begun, %d known before, %d lines skipped", path, begun, known, skipped)


async def _begin(chargeback: Chargeback) -> bool:
    """Begins the flow of a chargeback; returns whether it is new."""
    while True:
        try:
            flow = await agent.start_flow(FLOW_TYPE, chargeback.message, key=chargeback.id)
        except (BrokerUnavailable, StreamFull) as error:
            logger.warning("chargeback %s: %s; trying again in %g s", chargeback.id, error, PATIENCE)
            await asyncio.sleep(PATIENCE)
        else:
            return not flow.already_started


if __name__ == "__main__":
    agent.run()
