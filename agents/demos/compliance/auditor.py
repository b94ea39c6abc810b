"""The agent that looks again at what was approved: it may have been changed since it was checked."""

from compliance.v1.compliance_pb2 import ApprovalVerified, DistributionApproved, TamperingFound
from demos.compliance.answers import find
from demos.compliance.checks.integrity import inspect
from handrail.agents import Agent

agent = Agent("auditor", validate_inbound=True)


@agent.on(DistributionApproved)
def verify(event: DistributionApproved) -> ApprovalVerified | TamperingFound:
    """Take the fingerprint again. Even where the RECORD was rewritten to fit, it is not the one that was approved."""
    installed = find(event.distribution)
    inspection = inspect(installed)
    if inspection.fingerprint == event.fingerprint:
        return ApprovalVerified(distribution=event.distribution, approval_id=event.approval_id)
    findings = inspection.findings
    findings.grave(
        "FINGERPRINT_DIFFERS",
        event.distribution.folder,
        "its files are not those that were approved, nor is its RECORD"
        if findings.passed
        else "its files are not those that were approved",
    )
    return TamperingFound(distribution=event.distribution, approval_id=event.approval_id, findings=findings.failures)


if __name__ == "__main__":
    agent.run()
