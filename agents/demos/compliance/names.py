"""The agent that checks names."""

from collections.abc import Iterator
from functools import cache

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, DistributionFound
from demos.compliance import settings
from demos.compliance.answers import answer, find
from demos.compliance.checks import names
from handrail.agents import Agent

agent = Agent("names", validate_inbound=True)


@cache
def known() -> names.Names:
    """The list of names, read once."""
    return names.Names.load(settings.names_path())


@agent.on(DistributionFound)
def check(event: DistributionFound) -> Iterator[CheckFailed | CheckCompleted]:
    """Checks the name."""
    installed = find(event.distribution)
    return answer(installed, Check.CHECK_NAMES, names.check(installed, known()))


if __name__ == "__main__":
    agent.run()
