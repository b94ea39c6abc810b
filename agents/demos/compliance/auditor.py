"""The agent that checks approved files again: they may have been changed since the checks."""

from compliance.v1.compliance_pb2 import ApprovalVerified, DistributionApproved, TamperingFound
from demos.compliance.answers import find
from demos.compliance.checks.integrity import inspect
from handrail.agents import Agent

agent = Agent("auditor", validate_inbound=True)


@agent.on(DistributionApproved)
def verify(event: DistributionApproved) -> ApprovalVerified | TamperingFound:
    """Computes the fingerprint again. It differs from the approved one even if the RECORD was rewritten to match."""
    installed = find(event.distribution)
    inspection = inspect(installed)
    if inspection.fingerprint == event.fingerprint:
        return ApprovalVerified(distribution=event.distribution, approval_id=event.approval_id)
    findings = inspection.findings
    findings.grave(
        "FINGERPRINT_DIFFERS",
        event.distribution.folder,
        "its files are not those that were approved, and its RECORD differs too"
        if findings.passed
        else "its files are not those that were approved",
    )
    return TamperingFound(distribution=event.distribution, approval_id=event.approval_id, findings=findings.failures)


if __name__ == "__main__":
    agent.run()
