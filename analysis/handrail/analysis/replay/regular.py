"""Trials of regular histories, without the complete fold.

Most flows are regular: each triggered step answered once, nothing failed, nobody intervened, no rule tripped. A few
checks suffice to find their facts, at a fraction of the fold's cost. All other flows are left to `observed`: a check
here may be too strict, but never too lax. A property-based test compares the two.
"""

from __future__ import annotations

from dataclasses import replace

from google.protobuf.message import DecodeError

from handrail.analysis.replay.stored import Messages, decode
from handrail.analysis.replay.trial import Facts, Trial
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, ProposalState
from handrail.mesh.fold import Versions, approvals, begin
from handrail.mesh.fold.outcomes import AGENT_IDENTITY, why_not_first
from handrail.mesh.template import APPROVAL_REFUSED, STEP_COMPLETED, Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import ApprovalGiven, ApprovalRequested

_APPROVALS = {
    ApprovalRequested.DESCRIPTOR.full_name: approvals.apply_requested,
    ApprovalGiven.DESCRIPTOR.full_name: approvals.apply_given,
    APPROVAL_REFUSED: approvals.apply_refused,
}


class _Irregular(Exception):
    """The flow is not regular: the complete fold has to handle it."""


def try_regular(messages: Messages, versions: Versions, changed: Template) -> tuple[Trial, Trial] | None:
    """The trials with the flow's own version and with the changed template; None if the history is not regular."""
    try:
        first = decode(messages[0])
        template = versions.get(first.event.template_version)
        if template is None or first.kind is not Kind.EVENT or first.event.step:
            return None
        walk = _Walk(template, changed, first)
        for stored in messages[1:]:
            walk.take(decode(stored))
    except (HandrailError, DecodeError, _Irregular):
        return None
    return walk.then, walk.now


class _Walk:
    """The walk through a regular flow: triggered and answered steps, and the two trials."""

    def __init__(self, template: Template, changed: Template, first: Recorded) -> None:
        self._template = template
        self.then = Trial(template)
        self.now = Trial(changed)
        # Holds only the inputs of votes and conditions: requester, proposals, facts by type.
        self._flow: Flow = begin(template)
        self._flow.first = self._first = first
        self._triggered: set[tuple[str, str]] = set()
        self._answered: set[tuple[str, str]] = set()
        if why_not_first(template, first) is not None or template.gates_on(first.type):
            raise _Irregular
        self._check(first)
        self._flow.requester = first.event.requester if first.agent == COORDINATOR else AGENT_IDENTITY + first.agent
        self._propose(first)
        self._add(first)

    def take(self, recorded: Recorded) -> None:
        """Takes the next message. Raises _Irregular unless it is clearly a valid answer, release or vote."""
        match recorded.kind:
            case Kind.EVENT:
                self._answer(recorded, gated=False)
                self._propose(recorded)
                self._add(recorded)
            case Kind.PROPOSAL:
                self._answer(recorded, gated=True)
                self._flow.proposals[recorded.event_id] = approvals.evaluate(self._flow, recorded)
                self._propose(recorded)
            case Kind.RELEASED:
                self._release(recorded)
                self._add(recorded)
            case Kind.DECISION:
                self._decide(recorded)
            case _:
                raise _Irregular

    def _check(self, recorded: Recorded) -> None:
        template = self._template
        if recorded.event.template_version != template.version:
            raise _Irregular
        template.contracts.validate(template.contracts.decode(recorded.event.data))

    def _answer(self, recorded: Recorded, *, gated: bool) -> None:
        event = recorded.event
        step = self._template.steps.get(event.step)
        key = (event.step, event.root)
        if (
            step is None
            or step.agent != recorded.agent
            or (recorded.type not in step.emits and recorded.type != STEP_COMPLETED)
            or bool(self._template.gates_on(recorded.type)) is not gated
            or event.run
            or event.output_index
            or event.output_total > 1
            or key in self._answered
            or key not in self._triggered
        ):
            raise _Irregular
        self._check(recorded)
        self._answered.add(key)

    def _release(self, recorded: Recorded) -> None:
        proposal = self._flow.proposals.get(recorded.event_id)
        if (
            proposal is None
            or proposal.recorded.agent != recorded.agent
            or proposal.recorded.event != recorded.event
            or not approvals.may_be_released(proposal)
        ):
            raise _Irregular
        self._flow.proposals[recorded.event_id] = replace(proposal, state=ProposalState.RELEASED)

    def _decide(self, recorded: Recorded) -> None:
        apply = _APPROVALS.get(recorded.type)
        if (
            apply is None
            or recorded.agent != COORDINATOR
            or recorded.event.template_version != self._template.version
            or apply(self._flow, recorded) is not None
        ):
            raise _Irregular
        if recorded.type == APPROVAL_REFUSED:
            self._trigger(recorded)

    def _propose(self, recorded: Recorded) -> None:
        if self.then.template.gates_on(recorded.type) or self.now.template.gates_on(recorded.type):
            facts = self._facts()
            self.then.propose(recorded, facts)
            self.now.propose(recorded, facts)

    def _facts(self) -> Facts:
        return Facts(self._first, dict(self._flow.facts_by_type), dict(self._flow.proposals))

    def _add(self, recorded: Recorded) -> None:
        name = recorded.type
        if self._template.joins_on(name):
            raise _Irregular
        self._trigger(recorded)
        self._flow.facts_by_type[name] = (*self._flow.facts_by_type.get(name, ()), recorded)
        if not (self._template.rules_on(name) or self.now.template.rules_on(name)):
            return
        facts = self._facts()
        self.then.add(recorded, facts)
        if self.then.tripped:
            # The rule halted the flow here, recorded or not: only the fold knows which later messages are valid.
            raise _Irregular
        self.now.add(recorded, facts)

    def _trigger(self, recorded: Recorded) -> None:
        for step in self._template.triggered_by(recorded.type):
            self._triggered.add((step.name, recorded.event_id))
