"""The agent that compares files with the installed ones."""

from collections.abc import Iterator

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, DistributionFound, TamperingFound
from demos.compliance.answers import answer, find
from demos.compliance.checks.integrity import inspect
from handrail.agents import Agent

agent = Agent("integrity", validate_inbound=True)


@agent.on(DistributionFound)
def check(event: DistributionFound) -> Iterator[TamperingFound | CheckFailed | CheckCompleted]:
    """Checks every file. A changed file ends the flow, independent of other findings."""
    installed = find(event.distribution)
    inspection = inspect(installed)
    if inspection.changed:
        yield TamperingFound(distribution=installed.distribution, findings=inspection.changed)
    yield from answer(installed, Check.CHECK_INTEGRITY, inspection.findings, fingerprint=inspection.fingerprint)


if __name__ == "__main__":
    agent.run()
