"""Records acts on templates that need two persons, and the policy that says which do."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.message import Message

from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored, HandrailError, WrongSequence
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.template.decisions import Decided, TemplateAct, act_on, requested
from handrail.mesh.template.persons import ActState, has_expired
from handrail.mesh.wire.envelope import timestamp
from handrail.mesh.wire.identity import same
from handrail.mesh.wire.subjects import POLICY, activation_subject, pending_subject, withdrawn_subject
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.template_pb2 import InstallationPolicy, TemplateActWithdrawn


class TemplateActs:
    """Appends to the TEMPLATE stream, and judges by what its leader has. Each call raises the errors of the bus."""

    def __init__(self, bus: Bus, catalog: Catalog) -> None:
        self._bus = bus
        self._catalog = catalog

    async def ask(self, name: str, decided: Decided, *, request: CallerRequest, now: datetime) -> TemplateAct | None:
        """Records a decision as pending if the policy wants two persons for it; None if one may do it alone.

        The same call again, or the same wish of the same person while it waits, gets the act that is there. Raises
        REQUEST_ID_REUSED.
        """
        while True:
            await self._catalog.refresh_from_leader()
            decisions = self._catalog.decisions
            asked = requested(decisions, name, decided)
            asked.request.CopyFrom(request)
            repeated = self._catalog.is_repeated(request)
            for act in decisions.acts.values():
                if repeated and act.request.request == request:
                    return act
                waits = act.state is ActState.PENDING and not has_expired(act, now)
                if waits and act.digest == asked.digest and act.name == name and same(act.by, asked.by):
                    return act
            if repeated or act_on(name) not in decisions.require_two:
                return None
            await self._append(pending_subject(name, decisions.next_number(name, "pending")), asked)

    async def withdraw(self, act: TemplateAct, *, by: str, reason: str, request: CallerRequest) -> TemplateAct:
        """Ends a pending act undone; raises ACT_CLOSED."""
        subject = withdrawn_subject(act.name, act.number)
        await self._append(subject, TemplateActWithdrawn(by=by, reason=reason, request=request))
        await self._catalog.refresh_from_leader()
        self._refuse(subject)
        return self._catalog.decisions.acts[act.act_id]

    async def set_policy(
        self,
        policy: InstallationPolicy,
        *,
        now: datetime,
        request: CallerRequest,
        confirmation: ActConfirmation | None = None,
    ) -> InstallationPolicy:
        """Records a policy: who asked, the acts, and the reason are set. Idempotent for the same call.

        Raises TWO_PERSONS_NEEDED if the policy in force wants a `confirmation`, and the reason why one does not count.
        """
        wanted = InstallationPolicy()
        wanted.CopyFrom(policy)
        wanted.time.CopyFrom(timestamp(now))
        wanted.request.CopyFrom(request)
        if confirmation is not None:
            wanted.confirmation.CopyFrom(confirmation)
        subject = ""
        while True:
            await self._catalog.refresh_from_leader()
            decisions = self._catalog.decisions
            repeated = self._catalog.is_repeated(request)
            for each in decisions.policies:
                confirmed = confirmation is not None and each.confirmation == confirmation
                if each == wanted or confirmed or (repeated and each.request == request):
                    return each
            self._catalog.require(POLICY, wanted, now, subject)
            subject = activation_subject(POLICY, decisions.next_number(POLICY, "active"))
            if not await self._append(subject, wanted):
                subject = ""

    async def _append(self, subject: str, message: Message) -> bool:
        """Appends a message; False if the subject was taken, which reading the stream then shows."""
        try:
            await self._bus.publish(subject, message.SerializeToString(), expected_sequence=0)
        except (AlreadyStored, WrongSequence):
            return False
        return True

    def _refuse(self, subject: str) -> None:
        refused = self._catalog.decisions.refused.get(subject)
        if refused is not None:
            raise HandrailError(refused.reason, refused.text)
