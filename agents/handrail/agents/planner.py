"""From a message to a plan: looks up the template, and reads the flow if the message alone is not enough."""

from __future__ import annotations

from functools import partial

from handrail.agents import plan
from handrail.agents.bindings import Bindings, Bound
from handrail.agents.broker_retry import BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.errors import Postponed
from handrail.agents.halted_flows import HaltedFlows
from handrail.agents.plan import Plan
from handrail.agents.recent_flows import RecentFlows
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, Void
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.error_reason_pb2 import ErrorReason

_DELIVERIES_WITHOUT_TEMPLATE = 5
_NO_TEMPLATE = (ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND, ErrorReason.ERROR_REASON_FLOW_NOT_FOUND)


class Planner:
    """Plans for one agent. Most messages need no read of their flow."""

    def __init__(
        self, bindings: Bindings, *, store: FlowStore, clock: Clock, patience: BrokerRetry, hints: HaltedFlows
    ) -> None:
        self._agent = bindings.agent
        self._bindings = bindings
        self._store = store
        self._catalog = store.catalog
        self._clock = clock
        self._patience = patience
        self._hints = hints
        self._recent = RecentFlows(store)

    def forget_flows(self) -> None:
        """Reads flows whole again: the broker may have lost messages while it was away."""
        self._recent.forget()

    async def plan(self, recorded: Recorded, *, delivered: int) -> Plan:
        """Plans what to do about a message on its n-th delivery.

        Raises `Postponed` for a version that is not stored; on the fifth delivery the plan says that the message is
        void instead. A message of a flow that was purged since is void, too: nothing is done about it.
        """
        await self._learn(recorded)
        at_once = self.at_once(recorded, delivered=delivered)
        if at_once is not None:
            return at_once
        address = recorded.address
        try:
            flow = await self._load(recorded)
        except HandrailError as error:
            if error.reason == ErrorReason.ERROR_REASON_FLOW_ARCHIVED:
                return Plan(void=Void(error.text))
            if error.reason not in _NO_TEMPLATE:
                raise
            if delivered < _DELIVERIES_WITHOUT_TEMPLATE:
                raise Postponed(f"flow {address.flow_id}: {error.text}") from error
            return Plan(void=Void(error.text, error.reason))
        match recorded.kind:
            case Kind.RETRY:
                return plan.retried(flow, recorded, agent=self._agent, delivered=delivered)
            case Kind.UNDO:
                return plan.undone(flow, recorded, agent=self._agent, delivered=delivered)
            case _:
                return plan.triggered(flow, recorded, agent=self._agent, delivered=delivered)

    def at_once(self, recorded: Recorded, *, delivered: int) -> Plan | None:
        """Plans from the message alone; None if that is not enough."""
        if recorded.kind is Kind.RETRY:
            return None
        bound = self._bound(recorded)
        if bound is None:
            return None
        now = self._clock.now()
        if recorded.kind is Kind.UNDO:
            return plan.undone_at_once(recorded, bound, agent=self._agent, delivered=delivered, now=now)
        hinted = recorded.address.flow_id in self._hints.flow_ids
        if plan.needs_fold(recorded, bound, self._bindings, delivered=delivered, now=now, hinted=hinted):
            return None
        return plan.direct(recorded, bound)

    async def _learn(self, recorded: Recorded) -> None:
        """Reads the stored versions again if the version that the message claims is unknown."""
        if self._bound(recorded) is None:
            await self._patience.insist(self._catalog.refresh)
            self._bindings.learn(self._catalog.all())

    def _bound(self, recorded: Recorded) -> Bound | None:
        template = self._catalog.get(recorded.address.flow_type, recorded.event.template_version)
        return None if template is None else self._bindings.of(template)

    async def _load(self, recorded: Recorded) -> Flow:
        address = recorded.address
        key = address.flow_type, address.flow_id
        if not self._completes_joins(recorded):
            return await self._patience.insist(lambda: self._store.load(*key, at_least=recorded.sequence))
        suffices = partial(plan.triggers_nothing, recorded=recorded, agent=self._agent)
        return await self._patience.insist(
            lambda: self._recent.load(*key, at_least=recorded.sequence, suffices=suffices)
        )

    def _completes_joins(self, recorded: Recorded) -> bool:
        bound = self._bound(recorded)
        is_fact = recorded.kind not in (Kind.RETRY, Kind.UNDO)
        return is_fact and bound is not None and bool(bound.route(recorded.type).joins)
