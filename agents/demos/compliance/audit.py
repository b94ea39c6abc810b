"""The audit at the end of a run: compares every flow with direct calls of the checks."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed
from demos.compliance.approvals import Approval
from demos.compliance.expected import Expected
from demos.compliance.history import History
from demos.compliance.plan import Ending, Plan
from demos.compliance.register import check_name
from handrail.v1.decision_pb2 import Escalated, FlowStatus

STATUS = {
    Ending.APPROVED: FlowStatus.FLOW_STATUS_COMPLETED,
    Ending.REMARKED: FlowStatus.FLOW_STATUS_COMPLETED,
    Ending.GRANTED: FlowStatus.FLOW_STATUS_COMPLETED,
    Ending.REFUSED: FlowStatus.FLOW_STATUS_CANCELLED,
    Ending.NEVER_APPROVED: FlowStatus.FLOW_STATUS_COMPENSATED,
    Ending.WITHDRAWN: FlowStatus.FLOW_STATUS_COMPENSATED,
}
NOT_IN_THE_REGISTER = frozenset({Ending.REFUSED, Ending.NEVER_APPROVED})


@dataclass(frozen=True, slots=True)
class Evidence:
    """The results of a run: status and messages of each flow, and the register; `withdrawn` are ids of approvals."""

    statuses: Mapping[str, FlowStatus.ValueType]
    histories: Mapping[str, History]
    approvals: Sequence[Approval]
    withdrawn: frozenset[str]


def ending(key: str, expected: Expected, plan: Plan, evidence: Evidence) -> Ending | None:
    """The end of a flow; None if it is not one of the planned ends."""
    status = evidence.statuses.get(key)
    return next((each for each in plan.endings(key, expected) if STATUS[each] == status), None)


def audit(expected: Mapping[str, Expected], plan: Plan, evidence: Evidence) -> list[str]:
    """Compares the evidence with plan and checks; returns a line for each fault."""
    register: dict[str, list[Approval]] = defaultdict(list)
    for approval in evidence.approvals:
        register[approval.distribution].append(approval)
    wrong = []
    for key, each in expected.items():
        complaints = _complaints(key, each, plan, evidence, register.pop(key, []))
        wrong += [f"{key}: {complaint}" for complaint in complaints]
    return [*wrong, *(f"the register has {key}, which is not a distribution of this run" for key in register)]


def _complaints(
    key: str, expected: Expected, plan: Plan, evidence: Evidence, approvals: Sequence[Approval]
) -> Iterator[str]:
    how = ending(key, expected, plan, evidence)
    history = evidence.histories.get(key, History(()))
    yield from _of_checks(expected, history, whole=how is None or how not in NOT_IN_THE_REGISTER)
    if bool(history.of(Escalated)) != expected.needs_person and not expected.changed:
        yield f"it {'needs' if expected.needs_person else 'does not need'} a person, and the flow says otherwise"
    if how is None:
        status = FlowStatus.Name(evidence.statuses.get(key, FlowStatus.FLOW_STATUS_UNSPECIFIED))
        yield f"its flow is {status.removeprefix('FLOW_STATUS_')}, expected: {' or '.join(plan.endings(key, expected))}"
        return
    yield from _of_register(how, expected, approvals, evidence.withdrawn)


def _of_checks(expected: Expected, history: History, *, whole: bool) -> Iterator[str]:
    """Compares the agents' answers with the checks. A flow that ended early may lack some answers."""
    said: dict[Check.ValueType, list[CheckCompleted]] = defaultdict(list)
    for completed in history.of(CheckCompleted):
        said[completed.check].append(completed)
    for check, result in expected.results.items():
        found = said[check]
        if len(found) != 1 and (whole or found):
            yield f"check {check_name(check)} was completed {len(found)} times"
        elif found and found[0] != result:
            yield f"check {check_name(check)} found {_codes(found[0])}, expected: {_codes(result)}"
    failed = sorted(each.check for each in history.of(CheckFailed))
    completed_as_failed = sorted(check for check, found in said.items() for each in found if not each.passed)
    if failed != completed_as_failed and whole:
        yield f"CheckFailed was published for {_names(failed)}, but the failed checks are {_names(completed_as_failed)}"


def _of_register(
    how: Ending, expected: Expected, approvals: Sequence[Approval], withdrawn: frozenset[str]
) -> Iterator[str]:
    wanted = 0 if how in NOT_IN_THE_REGISTER else 1
    if len(approvals) != wanted:
        yield f"the register has {len(approvals)} approvals of it, not {wanted}"
    for approval in approvals:
        if (approval.approval_id in withdrawn) != (how is Ending.WITHDRAWN):
            yield f"approval {approval.approval_id} is {'' if approval.approval_id in withdrawn else 'not '}withdrawn"
        if approval.fingerprint != expected.fingerprint:
            yield f"approval {approval.approval_id} has another fingerprint than the checked files"
        if list(approval.remarks) != [check_name(check) for check in expected.failed]:
            yield f"approval {approval.approval_id} has the remarks {', '.join(approval.remarks) or 'none'}"


def _codes(result: CheckCompleted) -> str:
    return ", ".join(f"{finding.code} {finding.subject}".strip() for finding in result.findings) or "nothing"


def _names(checks: Sequence[Check.ValueType]) -> str:
    return ", ".join(map(check_name, checks)) or "none"
