"""The agent that carries out an approved plan safely: it writes a report, and a patch for people to apply."""

from pathlib import Path

from demos.research import settings
from demos.research.patch import patch_of
from demos.research.reports import Reports
from handrail.agents import Agent, Context, NonRetryable
from handrail.v1.decision_pb2 import ApprovalRefused
from research.v1.research_pb2 import ChangePlanProposed, ReportRemoved, ReportWritten

agent = Agent("execution", validate_inbound=True)


@agent.on(ChangePlanProposed)
def execute(event: ChangePlanProposed, ctx: Context) -> ReportWritten:
    """Writes the report and the patch. The source itself is not changed."""
    patch = patch_of(Path(event.folder), event)
    return _reports().write(event, patch, key=ctx.idempotency_key, refused_by="")


@agent.on(ApprovalRefused)
def give_up(event: ApprovalRefused, ctx: Context) -> ReportWritten:
    """Writes a report that says that nothing is changed, and who refused the plan."""
    proposed = ChangePlanProposed()
    if not event.proposal.Unpack(proposed):
        raise NonRetryable(f"the refused proposal is {event.proposal.TypeName()}, not a ChangePlanProposed")
    return _reports().write(proposed, None, key=ctx.idempotency_key, refused_by=event.voter or "nobody: it expired")


@agent.undoes(ReportWritten)
def remove(event: ReportWritten) -> ReportRemoved:
    """Removes report and patch; missing files are not an error."""
    _reports().remove(event)
    return ReportRemoved(name=event.name)


def _reports() -> Reports:
    return Reports(settings.output_path())


if __name__ == "__main__":
    agent.run()
