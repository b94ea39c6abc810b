"""The audit of refused calls: each is logged and counted, never recorded in a flow."""

from __future__ import annotations

import logging

from google.protobuf.descriptor_pb2 import MethodOptions

from handrail.coordinator.api.authorization import caller_if_known
from handrail.coordinator.api.interceptors import Call, Proceed
from handrail.mesh import telemetry
from handrail.mesh.errors import HandrailError
from handrail.v1 import (
    act_service_pb2,
    approval_service_pb2,
    flow_service_pb2,
    quarantine_service_pb2,
    template_service_pb2,
)

log = logging.getLogger(__name__)

_LONGEST = 400
"""The longest refusal text that is logged, in characters."""

CHANGING = frozenset(
    f"/{service.full_name}/{method.name}"
    for module in (
        flow_service_pb2,
        approval_service_pb2,
        act_service_pb2,
        template_service_pb2,
        quarantine_service_pb2,
    )
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
    if method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
)
"""The RPCs that change something, by full method path."""


class RefusalAudit:
    """Logs and counts every refused call to an RPC that changes something: the caller, the method and the reason."""

    async def around(self, call: Call, proceed: Proceed) -> None:
        """See `Around`."""
        try:
            await proceed(call)
        except HandrailError as error:
            if call.method in CHANGING:
                _record(call.method.rpartition("/")[2], error)
            raise


def _record(method: str, error: HandrailError) -> None:
    caller = caller_if_known()
    log.warning(
        "refused: %s asked for %s: %s (%s)",
        _shown(caller.subject) if caller is not None else "an unknown caller",
        method,
        _shown(error.text),
        error.reason_name,
    )
    telemetry.count("refusals", rpc=method, reason=error.reason_name)


def _shown(text: str) -> str:
    """Returns a text on one line, with unprintable characters escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text[:_LONGEST])
