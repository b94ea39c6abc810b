"""The agent that checks licences against a policy."""

from collections.abc import Iterator
from functools import cache

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, DistributionFound
from demos.compliance import settings
from demos.compliance.answers import answer, find
from demos.compliance.checks import licences
from handrail.agents import Agent

agent = Agent("licences", validate_inbound=True)


@cache
def policy() -> licences.Policy:
    """The policy, read once."""
    return licences.Policy.load(settings.policy_path())


@agent.on(DistributionFound)
def check(event: DistributionFound) -> Iterator[CheckFailed | CheckCompleted]:
    """Judges the licence that the distribution claims."""
    installed = find(event.distribution)
    return answer(installed, Check.CHECK_LICENCES, licences.check(installed, policy()))


if __name__ == "__main__":
    agent.run()
