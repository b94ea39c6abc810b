"""Shared by the checking agents: the distribution of an event, and the answer of a check."""

from collections.abc import Iterator

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed, Distribution
from demos.compliance import settings
from demos.compliance.findings import Findings
from demos.compliance.installed import Installed, key
from handrail.agents import NonRetryable


def find(distribution: Distribution) -> Installed:
    """Finds the distribution of an event, in an environment of this agent's settings.

    Raises:
        NonRetryable: if the environment is unknown, or the folder belongs to another distribution. The checks find out
            whether it is installed.
    """
    environment = settings.environments().get(distribution.environment)
    if environment is None:
        raise NonRetryable(f"{key(distribution)}: {settings.ENVIRONMENTS} has no environment of this name")
    installed = environment.at(distribution.folder)
    if installed is None or installed.distribution != distribution:
        raise NonRetryable(f"{key(distribution)}: {distribution.folder} is not the folder of its metadata")
    return installed


def answer(
    installed: Installed, check: Check.ValueType, findings: Findings, *, fingerprint: str = ""
) -> Iterator[CheckFailed | CheckCompleted]:
    """The answer of a check. CheckFailed comes first: a reader with every CheckCompleted also has every CheckFailed."""
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
