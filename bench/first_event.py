"""The first event of a flow, as the coordinator's `StartFlow` publishes it."""

from __future__ import annotations

from google.protobuf.any_pb2 import Any
from google.type.money_pb2 import Money

from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import ChargebackReceived


def starting(flow_type: str, flow_id: str, data: Any) -> tuple[str, bytes]:
    """The subject and body of the first event of a flow."""
    event_id = ids.start_id(flow_id)
    address = Address(flow_type, flow_id, Kind.EVENT, COORDINATOR, event_id, ChargebackReceived.DESCRIPTOR.full_name)
    event = Event(
        event_id=event_id,
        source=COORDINATOR,
        flow_type=flow_type,
        flow_id=flow_id,
        template_version=1,
        output_total=1,
        data=data,
    )
    return address.subject, event.SerializeToString()


def first_message(units: int = 40) -> Any:
    """The data of a first event: a chargeback of so many euros."""
    return pack(
        ChargebackReceived(
            chargeback_id="c" * 40,
            account_id="a" * 40,
            amount=Money(currency_code="EUR", units=units),
            reason="r" * 60,
        )
    )
