"""The bus: Handrail's only access to the broker. `Bus` is the protocol, `NatsBus` implements it over NATS.

A caller

1. settles each delivery of a `pull` exactly once: `ack`, `nak` or `term`, with `in_progress` while it takes long;
2. keeps in mind that a publish that raises BrokerUnavailable may be stored or not: it looks for its own message,
   or sends it again with the same subject and expectation;
3. compares `Page.up_to_sequence` with the sequence it knows: a replica may lag;
4. calls `request_json` only for requests that are safe to send twice;
5. uses `subscribe` for hints only: messages of a core subscription may be lost.
"""

from handrail.mesh.bus.api import ApiError
from handrail.mesh.bus.bus import Bus
from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.delivery import Delivery
from handrail.mesh.bus.direct_get import Page, RawMessage, TooManySubjects
from handrail.mesh.bus.nats_bus import NatsBus
from handrail.mesh.bus.pull import Pull

__all__ = ["ApiError", "Bus", "BusSettings", "Delivery", "NatsBus", "Page", "Pull", "RawMessage", "TooManySubjects"]
