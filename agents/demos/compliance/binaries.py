"""The agent that looks for code that runs without being imported."""

from collections.abc import Iterator

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, DistributionFound
from demos.compliance.answers import answer, find
from demos.compliance.checks import binaries
from handrail.agents import Agent

agent = Agent("binaries", validate_inbound=True)


@agent.on(DistributionFound)
def check(event: DistributionFound) -> Iterator[CheckFailed | CheckCompleted]:
    """Looks for executable lines in .pth files, and for native binaries."""
    installed = find(event.distribution)
    return answer(installed, Check.CHECK_BINARIES, binaries.check(installed))


if __name__ == "__main__":
    agent.run()
