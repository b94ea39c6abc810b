"""What the agents that check have in common: which distribution an event means, and how a check is answered."""

from collections.abc import Iterator

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, Distribution
from demos.compliance import settings
from demos.compliance.findings import Findings
from demos.compliance.installed import Installed, key
from handrail.agents import NonRetryable


def find(distribution: Distribution) -> Installed:
    """The distribution that an event means, in an environment that this agent was told of.

    Raises:
        NonRetryable: where there is no such environment, or the folder is another distribution's. That it is not
            installed is for the checks to find.
    """
    environment = settings.environments().get(distribution.environment)
    if environment is None:
        raise NonRetryable(f"{key(distribution)}: {settings.ENVIRONMENTS} names no environment of this name")
    installed = environment.at(distribution.folder)
    if installed is None or installed.distribution != distribution:
        raise NonRetryable(f"{key(distribution)}: {distribution.folder} is not the folder of its metadata")
    return installed


def answer(
    installed: Installed, check: Check.ValueType, findings: Findings, *, fingerprint: str = ""
) -> Iterator[CheckFailed | CheckCompleted]:
    """What a check publishes. CheckFailed comes first: whoever has every CheckCompleted has every CheckFailed too."""
    if not findings.passed:
        yield CheckFailed(distribution=installed.distribution, check=check, findings=findings.failures)
    yield CheckCompleted(
        distribution=installed.distribution,
        check=check,
        passed=findings.passed,
        findings=findings.all,
        omitted=findings.omitted,
        fingerprint=fingerprint,
    )
