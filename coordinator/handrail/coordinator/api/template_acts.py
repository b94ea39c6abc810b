"""Acts on templates, and on the policy, that need two persons: found, shown, confirmed and withdrawn for a caller."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime

from handrail.coordinator.api import authorization, worker_fitness
from handrail.coordinator.api.authorization import current_caller
from handrail.coordinator.api.flow_lookup import no_act
from handrail.coordinator.api.views.template_acts import activation_warnings, policy_warnings, template_act_view
from handrail.coordinator.decide.grants import BREAKGLASS, EVERY_TYPE, TEMPLATE_ADMIN
from handrail.coordinator.reconcile.activation import Activator
from handrail.mesh import telemetry
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.template_acts import TemplateActs
from handrail.mesh.template import Template
from handrail.mesh.template.decisions import TemplateAct
from handrail.mesh.template.persons import ActState, has_expired, why_not
from handrail.mesh.wire.subjects import POLICY
from handrail.v1 import act_service_pb2 as pb
from handrail.v1.act_pb2 import ActConfirmation, PendingAct
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.template_pb2 import Activation, InstallationPolicy
from handrail.v1.template_service_pb2 import ActivateTemplateResponse

log = logging.getLogger(__name__)

_ROLES = (BREAKGLASS, TEMPLATE_ADMIN)


class TemplateActDesk:
    """Judges by what the leader of the TEMPLATE stream has."""

    def __init__(self, bus: Bus, catalog: Catalog, activator: Activator) -> None:
        self._bus = bus
        self._catalog = catalog
        self._activator = activator
        self.acts = TemplateActs(bus, catalog)

    async def find(self, act_id: str) -> TemplateAct | None:
        """The act with this id, if it is on a template or the policy; raises ACT_NOT_FOUND for who may not read it."""
        await self._catalog.refresh_from_leader()
        act = self._catalog.decisions.acts.get(act_id)
        if act is not None:
            authorization.require_on(_scope(act), no_act(act_id))
        return act

    def view(self, act: TemplateAct, now: datetime | None = None) -> PendingAct:
        """An act with its warnings, at `now`, or as it was asked for."""
        waits = now is None or act.state is ActState.PENDING
        return template_act_view(act, now=now, warnings=self._warnings(act) if waits else ())

    def listed(self, flow_type: str, *, include_closed: bool, now: datetime) -> Iterator[PendingAct]:
        """The acts that the caller may see, oldest first."""
        for act in self._catalog.decisions.acts.values():
            waits = act.state is ActState.PENDING and not has_expired(act, now)
            if (include_closed or waits) and flow_type in ("", act.name) and authorization.lists(_scope(act)):
                yield self.view(act, now)

    async def confirm(
        self, act: TemplateAct, request: pb.ConfirmActRequest, call: CallerRequest, now: datetime
    ) -> pb.ConfirmActResponse:
        """Has an act done, with the caller as its second person, or by the caller alone who breaks the glass."""
        caller = current_caller()
        said = ActConfirmation(
            act_id=act.act_id,
            digest=request.digest,
            by=caller.subject,
            roles=[role for role in _ROLES if caller.holds(role, _scope(act))],
            break_glass=bool(request.break_glass_reason),
            reason=request.break_glass_reason,
        )
        if act.confirmation != said:
            refused = why_not(act, said, now, role=TEMPLATE_ADMIN)
            if refused is not None:
                raise HandrailError(refused.reason, refused.text, act_id=act.act_id)
        answer = pb.ConfirmActResponse()
        decided = act.decided
        if isinstance(decided, InstallationPolicy):
            policy = await self.acts.set_policy(decided, now=now, request=call, confirmation=said)
            answer.policy.CopyFrom(policy)
        else:
            answer.activated.CopyFrom(await self._activate(act, decided, said, call))
        answer.act.CopyFrom(self.view(self._catalog.decisions.acts[act.act_id], now))
        if said.break_glass and act.confirmation != said:
            what, by, why = (clean(text) for text in (answer.act.summary, said.by, said.reason))
            log.error("%s broke the glass and did alone what needs two persons (%s): %s", by, what, why)
            telemetry.count("broken_glass", flow_type=act.name)
        return answer

    async def withdraw(
        self, act: TemplateAct, request: pb.WithdrawActRequest, call: CallerRequest, now: datetime
    ) -> pb.WithdrawActResponse:
        """Ends an act undone; raises ACT_CLOSED or MISSING_ROLE."""
        caller = current_caller()
        if act.state is ActState.PENDING:
            if not caller.holds(TEMPLATE_ADMIN, _scope(act)):
                raise HandrailError(
                    ErrorReason.ERROR_REASON_MISSING_ROLE,
                    f"{caller.subject} may not withdraw it: it needs the grant {TEMPLATE_ADMIN}@{_scope(act)}",
                )
            act = await self.acts.withdraw(act, by=caller.subject, reason=request.reason, request=call)
        elif not (act.state is ActState.WITHDRAWN and act.settled_by == caller.subject):
            raise HandrailError(
                ErrorReason.ERROR_REASON_ACT_CLOSED, f"the act is {act.state.name.lower()}", act_id=act.act_id
            )
        return pb.WithdrawActResponse(act=self.view(act, now))

    async def set_policy(
        self, request: pb.SetPolicyRequest, call: CallerRequest, now: datetime
    ) -> pb.SetPolicyResponse:
        """Changes the policy, or asks for a second person to do so."""
        caller = current_caller()
        wanted = InstallationPolicy(require_two=sorted(request.require_two), by=caller.subject, reason=request.reason)
        if request.HasField("confirm_within"):
            wanted.confirm_within.CopyFrom(request.confirm_within)
        await self._catalog.refresh_from_leader()
        in_force = self._catalog.decisions.policy
        repeated = self._catalog.is_repeated(call)
        same = (in_force.require_two, in_force.confirm_within) == (wanted.require_two, wanted.confirm_within)
        if same and not repeated:
            return pb.SetPolicyResponse(policy=in_force)
        pending = await self.acts.ask(POLICY, wanted, request=call, now=now)
        if pending is not None:
            return pb.SetPolicyResponse(pending_act=self.view(pending))
        return pb.SetPolicyResponse(policy=await self.acts.set_policy(wanted, now=now, request=call))

    async def policy(self) -> InstallationPolicy:
        """The policy in force."""
        await self._catalog.refresh_from_leader()
        return self._catalog.decisions.policy

    async def _activate(
        self, act: TemplateAct, decided: Activation, said: ActConfirmation, call: CallerRequest
    ) -> ActivateTemplateResponse:
        template = await self._catalog.template(act.name, decided.version)
        unfit = await worker_fitness.unfit_agents(self._bus, template)
        if not decided.force and act.state is ActState.PENDING:
            worker_fitness.require_fit(template, unfit)
        now = datetime.now(UTC)
        answer = await self._activator.activate(template, decided, now=now, request=call, confirmation=said)
        answer.unfit_agents.extend(unfit)
        return answer

    def _warnings(self, act: TemplateAct) -> list[str]:
        decided = act.decided
        if isinstance(decided, InstallationPolicy):
            return policy_warnings(self._catalog.decisions, decided)
        template = self._catalog.get(act.name, decided.version)
        active: Template | None = self._catalog.get(act.name, self._catalog.active_version(act.name))
        return [] if template is None else activation_warnings(active, template)


def _scope(act: TemplateAct) -> str:
    return EVERY_TYPE if act.name == POLICY else act.name
