"""The agent that checks metadata, and whether what a distribution needs is there."""

from collections.abc import Iterator

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, DistributionFound
from demos.compliance.answers import answer, find
from demos.compliance.checks import metadata
from handrail.agents import Agent

agent = Agent("metadata", validate_inbound=True)


@agent.on(DistributionFound)
def check(event: DistributionFound) -> Iterator[CheckFailed | CheckCompleted]:
    """Look at the metadata, and at what else is installed."""
    installed = find(event.distribution)
    return answer(installed, Check.CHECK_METADATA, metadata.check(installed))


if __name__ == "__main__":
    agent.run()
