"""The operations of the coordinator, each as a small story: what agents answer, what a person does, and how it must
end."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import grpc.aio
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.coordinator.api.qualified_id import qualified
from handrail.mesh.flow import Effect, Flow, ProposalState, StepRun
from handrail.mesh.fold import status
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, RejectProposalRequest
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.decision_pb2 import Choice, FlowStatus
from handrail.v1.failure_pb2 import StepFailed
from handrail.v1.flow_service_pb2 import (
    CancelFlowRequest,
    CompensateFlowRequest,
    MigrateFlowRequest,
    ResolveEscalationRequest,
    RetryStepRequest,
)
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from payments.v1 import payments_pb2 as payments
from tests.chaos.actors import Script

if TYPE_CHECKING:
    from handrail.v1.approval_service_pb2_grpc import ApprovalServiceAsyncStub
    from handrail.v1.flow_service_pb2_grpc import FlowServiceAsyncStub

Call = Awaitable[object]
"""A pending call."""

TEMPLATE = """
name: {name}
version: {version}
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 600s
steps:
  - {{name: enrich, agent: enrichment, after: [payments.v1.ChargebackReceived], emits: [payments.v1.ChargebackEnriched],
      effect: NONE, timeout: {timeout}, retry: {{max_attempts: 3, initial_backoff: 0.1s}}, on_failure: {on_failure}}}
  - {{name: grant, agent: refunds, after: [payments.v1.ChargebackEnriched],
      emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted], effect: NONE, timeout: 60s}}
  - {{name: pay, agent: ledger, after: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted],
      emits: [payments.v1.RefundPaid], effect: UNDOABLE, timeout: 60s,
      retry: {{max_attempts: 3, initial_backoff: 0.1s}}, on_failure: COMPENSATE,
      undo: {{timeout: 60s, retry: {{max_attempts: 2, initial_backoff: 0.1s}}, emits: [payments.v1.RefundReversed]}}}}
  - {{name: notify, agent: notification, after: [payments.v1.RefundPaid, handrail.v1.ApprovalRefused],
      emits: [payments.v1.CustomerNotified], effect: IRREVERSIBLE, timeout: 60s, on_failure: COMPENSATE}}
gates:
  - {{name: large_refund, on: payments.v1.LargeRefundGranted, when: event.amount.units >= {gate},
      approvers: {{roles: [finance], quorum: 2}}, expires_after: {expires_after}, on_expiry: {on_expiry}}}
rules:
  - {{name: risky, on: [payments.v1.ChargebackEnriched], when: event.risk == payments.v1.Risk.RISK_HIGH, then: {then}}}
"""

_SMALL, _FREE, _GATED = 500, 1500, 2500


@dataclass
class People:
    """People's gRPC clients with tokens, on a channel that outlives the coordinator."""

    channel: grpc.aio.Channel
    token: Callable[[str, str], str]

    def flows(self) -> FlowServiceAsyncStub:
        """The flow service."""
        return FlowServiceStub(self.channel)

    def approvals(self) -> ApprovalServiceAsyncStub:
        """The approval service."""
        return ApprovalServiceStub(self.channel)

    def credentials(self, name: str, role: str) -> tuple[tuple[str, str], ...]:
        """A person's bearer token as metadata."""
        return (("authorization", f"Bearer {self.token(name, role)}"),)


@dataclass(frozen=True)
class Act:
    """An action that a person takes exactly once, when the flow is ready for it."""

    when: Callable[[Flow], bool]
    do: Callable[[People, Flow], Call]


@dataclass(frozen=True)
class Story:
    """One operation. `options` vary the template; `ends` is the status it must end in."""

    name: str
    ends: FlowStatus.ValueType
    amount: int = _SMALL
    risk: payments.Risk.ValueType = payments.RISK_LOW
    options: dict[str, str] = field(default_factory=dict)
    pay: Callable[[StepRun], Message | None] | None = None
    enrich: Callable[[StepRun], Message | None] | None = None
    notify: Callable[[StepRun], Message | None] | None = None
    undo: Callable[[Effect], Message] | None = None
    acts: tuple[Act, ...] = ()
    other: dict[str, str] | None = None
    """How version 2 differs, if there is one."""

    def templates(self) -> list[str]:
        """The versions of the flow type's template, as YAML; flows begin with the first."""
        others = [] if self.other is None else [self._template({"version": "2", **self.other})]
        return [self._template({}), *others]

    def _template(self, changes: dict[str, str]) -> str:
        options = {
            "version": "1",
            "gate": "2000",
            "timeout": "60s",
            "on_failure": "COMPENSATE",
            "expires_after": "600s",
            "on_expiry": "REJECT",
            "then": "ESCALATE",
        }
        return TEMPLATE.format(name=self.name, **{**options, **self.options, **changes})

    def start(self) -> payments.ChargebackReceived:
        """The first event."""
        return payments.ChargebackReceived(chargeback_id=self.name, account_id="a", amount=_money(self.amount))

    def script(self) -> Script:
        """The script of its agents."""
        return Script(
            steps={
                "enrich": self.enrich or (lambda run: _enriched(self.name, self.risk, self.amount)),
                "grant": lambda run: _granted(self.name, self.amount),
                "pay": self.pay or (lambda run: _paid(self.name, self.amount)),
                "notify": self.notify or (lambda run: _told(self.name)),
            },
            undo=self.undo
            or (lambda effect: payments.RefundReversed(chargeback_id=self.name, transfer_id="t", reversal_id="r")),
        )


def _failing_first(message: Callable[[], Message], failures: int) -> Callable[[StepRun], Message]:
    def answer(run: StepRun) -> Message:
        if run.attempt <= failures:
            return StepFailed(error_class="Planned", text="as planned", retryable=True)
        return message()

    return answer


def _hopeless(_: object) -> Message:
    return StepFailed(error_class="Planned", text="for good", retryable=False)


def _undo_hopeless(effect: Effect) -> Message:
    return StepFailed(error_class="Planned", text="for good", retryable=False, undo_of=effect.recorded.event_id)


def _money(units: int) -> Money:
    return Money(currency_code="EUR", units=units)


def _enriched(name: str, risk: payments.Risk.ValueType = payments.RISK_LOW, units: int = _SMALL) -> Message:
    return payments.ChargebackEnriched(
        chargeback_id=name, account_id="a", amount=_money(units), risk=risk, email="a@example.org"
    )


def _granted(name: str, units: int) -> Message:
    granted = payments.LargeRefundGranted if units >= 1000 else payments.SmallRefundGranted
    return granted(chargeback_id=name, account_id="a", amount=_money(units), email="a@example.org")


def _paid(name: str, units: int = _SMALL) -> Message:
    return payments.RefundPaid(
        chargeback_id=name, account_id="a", amount=_money(units), transfer_id="t", email="a@example.org"
    )


def _told(name: str) -> Message:
    return payments.CustomerNotified(chargeback_id=name, outcome=payments.OUTCOME_REFUNDED, message_id="m")


def _silent_first(run: StepRun) -> Message | None:
    return None if run.attempt == 1 else _enriched("silence")


def _pending(flow: Flow) -> bool:
    return any(proposal.state is ProposalState.PENDING for proposal in flow.proposals.values())


def _votes(number: int) -> Callable[[Flow], bool]:
    return lambda flow: _pending(flow) and all(len(p.ballots) == number for p in flow.proposals.values())


def _vote(name: str, *, approve: bool = True) -> Callable[[People, Flow], Call]:
    def do(people: People, flow: Flow) -> Call:
        proposal = next(iter(flow.proposals.values()))
        approval_id, digest = qualified(flow, proposal.recorded.event_id), proposal.digest
        metadata = people.credentials(name, "finance")
        if approve:
            yes = ApproveProposalRequest(approval_id=approval_id, digest=digest)
            return people.approvals().ApproveProposal(yes, metadata=metadata)
        no = RejectProposalRequest(approval_id=approval_id, digest=digest)
        return people.approvals().RejectProposal(no, metadata=metadata)

    return do


def _operator(people: People) -> tuple[tuple[str, str], ...]:
    return people.credentials("olga", "operator")


def _resolve(choice: Choice.ValueType) -> Callable[[People, Flow], Call]:
    def do(people: People, flow: Flow) -> Call:
        request = ResolveEscalationRequest(flow_id=flow.flow_id, choice=choice, reason="planned")
        return people.flows().ResolveEscalation(request, metadata=_operator(people))

    return do


def _compensate(to_step: str) -> Callable[[People, Flow], Call]:
    def do(people: People, flow: Flow) -> Call:
        request = CompensateFlowRequest(
            flow_id=flow.flow_id, reason="planned", to_step=to_step, request_id="3e9a3f0e-1c2f-4a7e-8f7e-0123456789ab"
        )
        request.run_again.append("notify")
        return people.flows().CompensateFlow(request, metadata=_operator(people))

    return do


def _cancel(people: People, flow: Flow) -> Call:
    request = CancelFlowRequest(
        flow_id=flow.flow_id, reason="planned", request_id="3e9a3f0e-1c2f-4a7e-8f7e-0123456789ac"
    )
    return people.flows().CancelFlow(request, metadata=_operator(people))


def _migrate(people: People, flow: Flow) -> Call:
    request = MigrateFlowRequest(flow_id=flow.flow_id, to_version=2, reason="planned")
    return people.flows().MigrateFlow(request, metadata=_operator(people))


def _retry(people: People, flow: Flow) -> Call:
    request = RetryStepRequest(flow_id=flow.flow_id, step="enrich", reason="planned", etag=flow.etag)
    return people.flows().RetryStep(request, metadata=_operator(people))


def _escalated(flow: Flow) -> bool:
    return bool(flow.escalations)


def _complete(flow: Flow) -> bool:
    return status(flow) == FlowStatus.FLOW_STATUS_COMPLETED


_COMPLETED = FlowStatus.FLOW_STATUS_COMPLETED
_COMPENSATED = FlowStatus.FLOW_STATUS_COMPENSATED

STORIES = (
    Story("release", _COMPLETED, amount=_FREE),
    Story(
        "approve",
        _COMPLETED,
        amount=_GATED,
        acts=(Act(_votes(0), _vote("anna")), Act(_votes(1), _vote("ben"))),
    ),
    Story("reject", _COMPLETED, amount=_GATED, acts=(Act(_votes(0), _vote("anna", approve=False)),)),
    Story("expire", _COMPLETED, amount=_GATED, options={"expires_after": "0.4s"}),
    Story("retry", _COMPLETED, pay=_failing_first(lambda: _paid("retry"), failures=2)),
    Story("silence", _COMPLETED, enrich=_silent_first, options={"timeout": "0.5s"}),
    Story("compensate", _COMPENSATED, notify=_hopeless),
    Story("fail", FlowStatus.FLOW_STATUS_FAILED, enrich=_hopeless, options={"on_failure": "FAIL"}),
    Story(
        "undo-by-hand",
        _COMPENSATED,
        notify=_hopeless,
        undo=_undo_hopeless,
        acts=(Act(_escalated, _resolve(Choice.CHOICE_MARK_UNDONE)),),
    ),
    Story(
        "cancel",
        FlowStatus.FLOW_STATUS_CANCELLED,
        amount=_GATED,
        acts=(Act(_pending, _cancel),),
    ),
    Story("migrate", _COMPLETED, amount=_GATED, acts=(Act(_pending, _migrate),), other={"gate": "5000"}),
    Story("undo-later", _COMPENSATED, acts=(Act(_complete, _compensate("")),)),
    Story(
        "back-to-step",
        _COMPLETED,
        acts=(Act(_complete, _compensate("grant")), Act(_escalated, _resolve(Choice.CHOICE_RESUME))),
    ),
    Story(
        "rule",
        _COMPLETED,
        risk=payments.RISK_HIGH,
        acts=(Act(_escalated, _resolve(Choice.CHOICE_RESUME)),),
    ),
    Story(
        "escalate",
        _COMPLETED,
        enrich=_failing_first(lambda: _enriched("escalate"), failures=3),
        options={"on_failure": "ESCALATE"},
        acts=(Act(_escalated, _retry),),
    ),
)
