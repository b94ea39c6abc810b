"""The agent that finds what is installed and begins a flow for each distribution."""

import asyncio
import logging

from compliance.v1.compliance_pb2 import DistributionFound
from demos.compliance import settings
from demos.compliance.installed import Installed
from handrail.agents import Agent
from handrail.mesh.errors import BrokerUnavailable, StreamFull

FLOW_TYPE = "approval"

# A broker that is away, or full, is asked again after so many seconds.
PATIENCE = 1.0

agent = Agent("inventory")
logger = logging.getLogger(__name__)


@agent.source
async def take() -> None:
    """Look through every environment once. After a restart a distribution that has its flow gets no second one."""
    for environment in settings.environments().values():
        begun = known = 0
        for installed in await asyncio.to_thread(list, environment.distributions()):
            if await _begin(installed):
                begun += 1
            else:
                known += 1
        logger.info("%s (%s): %d flows begun, %d known before", environment.name, environment.site, begun, known)


async def _begin(installed: Installed) -> bool:
    """Begin the flow of a distribution; whether it had none before."""
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
