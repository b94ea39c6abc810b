"""The agent that finds installed distributions and begins a flow for each."""

import asyncio
import logging

from compliance.v1.compliance_pb2 import DistributionFound
from demos.compliance import settings
from demos.compliance.installed import Installed
from handrail.agents import Agent
from handrail.mesh.errors import BrokerUnavailable, StreamFull

FLOW_TYPE = "approval"

# Seconds before the next try if the broker is unreachable or full.
PATIENCE = 1.0

agent = Agent("inventory")
logger = logging.getLogger(__name__)


@agent.source
async def take() -> None:
    """Reads every environment once. After a restart, a distribution that has a flow gets no second one."""
    for environment in settings.environments().values():
        begun = known = 0
        for installed in await asyncio.to_thread(list, environment.distributions()):
            if await _begin(installed):
                begun += 1
            else:
                known += 1
        logger.info("%s (%s): %d flows begun, %d known before", environment.name, environment.site, begun, known)


async def _begin(installed: Installed) -> bool:
    """Begins the flow of a distribution; returns whether it is new."""
    while True:
        try:
            event = DistributionFound(distribution=installed.distribution)
            flow = await agent.start_flow(FLOW_TYPE, event, key=installed.key)
        except (BrokerUnavailable, StreamFull) as error:
            logger.warning("%s: %s; trying again in %g s", installed.key, error, PATIENCE)
            await asyncio.sleep(PATIENCE)
        else:
            return not flow.already_started


if __name__ == "__main__":
    agent.run()
