"""Activation: the durables and quarantines first, then the record, then what the broker's permissions need."""

from __future__ import annotations

from datetime import datetime

from handrail.coordinator.reconcile.diagnosis import ACTIVATION_LEASE
from handrail.mesh import permissions
from handrail.mesh.bus import Bus
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ensure_durables
from handrail.mesh.streams.leases import Leases
from handrail.mesh.streams.quarantine_streams import ensure_quarantines
from handrail.mesh.template import Template
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.event_pb2 import CallerRequest
from handrail.v1.template_pb2 import Activation
from handrail.v1.template_service_pb2 import ActivateTemplateResponse


class Activator:
    """Makes a stored version the one that new flows begin with."""

    def __init__(self, bus: Bus, catalog: Catalog, leases: Leases) -> None:
        self._bus = bus
        self._catalog = catalog
        self._leases = leases

    async def activate(
        self,
        template: Template,
        wanted: Activation,
        *,
        now: datetime,
        request: CallerRequest,
        confirmation: ActConfirmation | None = None,
    ) -> ActivateTemplateResponse:
        """Updates durables and quarantines, then records the activation; `wanted` says by whom, why, whether forced.

        Raises FLOW_BUSY during another activation, and what `Catalog.activate` raises.
        """
        async with self._leases.hold(ACTIVATION_LEASE):
            await self._catalog.refresh_from_leader()
            await ensure_durables(self._bus, self._catalog.all())
            await ensure_quarantines(self._bus, self._catalog.all())
            sequence, activation = await self._catalog.activate(
                template.name,
                template.version,
                by=wanted.by,
                reason=wanted.reason,
                force=wanted.force,
                now=now,
                request=request,
                confirmation=confirmation,
            )
        before = [each.proto for each in self._catalog.activated_before(sequence)]
        changed = permissions.users(before) != permissions.users([*before, template.proto])
        return ActivateTemplateResponse(activation=activation, permissions_changed=changed)
