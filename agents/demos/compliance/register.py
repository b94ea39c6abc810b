"""The agent that writes approvals into the register, and withdraws them if they are undone."""

from functools import cache

from compliance.v1.compliance_pb2 import ApprovalWithdrawn, Check, CheckCompleted, DistributionApproved
from demos.compliance import settings
from demos.compliance.approvals import Register, RegisterError
from demos.compliance.installed import key
from handrail.agents import Agent, Context, NonRetryable

agent = Agent("register", validate_inbound=True)


@cache
def register() -> Register:
    """The register, opened once."""
    return Register(settings.register_path())


@agent.on_all(CheckCompleted)
def approve(checks: list[CheckCompleted], ctx: Context) -> DistributionApproved:
    """Approves the distribution, once per idempotency key; a failed check is a remark.

    A crash between the register's commit and the publish is harmless: the next attempt has the same key, finds the
    approval and reports it.
    """
    distribution = checks[0].distribution
    if sorted(each.check for each in checks) != sorted(Check.values())[1:]:
        raise NonRetryable(f"{key(distribution)}: these are not the five checks, each once")
    fingerprint = next(each.fingerprint for each in checks if each.check == Check.CHECK_INTEGRITY)
    remarks = sorted(each.check for each in checks if not each.passed)
    try:
        approval = register().approve(
            key=ctx.idempotency_key,
            distribution=key(distribution),
            fingerprint=fingerprint,
            remarks=[check_name(each) for each in remarks],
        )
    except RegisterError as error:
        raise NonRetryable(f"{key(distribution)}: {error}") from error
    return DistributionApproved(
        distribution=distribution, approval_id=approval.approval_id, fingerprint=fingerprint, remarks=remarks
    )


@agent.undoes(DistributionApproved)
def withdraw(event: DistributionApproved, ctx: Context) -> ApprovalWithdrawn:
    """Withdraws the approval, once. An approval that is not in the register needs a person."""
    try:
        register().withdraw(key=ctx.idempotency_key, approval_id=event.approval_id)
    except RegisterError as error:
        raise NonRetryable(f"{key(event.distribution)}: {error}") from error
    return ApprovalWithdrawn(distribution=event.distribution, approval_id=event.approval_id)


def check_name(check: Check.ValueType) -> str:
    """The short name of a check: `licences`."""
    return Check.Name(check).removeprefix("CHECK_").lower()


if __name__ == "__main__":
    agent.run()
