"""The bus: everything that the rest of Handrail does with the broker."""

from handrail.mesh.bus.api import ApiError
from handrail.mesh.bus.bus import Bus
from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.delivery import Delivery
from handrail.mesh.bus.direct_get import Page, RawMessage, TooManySubjects
from handrail.mesh.bus.nats_bus import NatsBus
from handrail.mesh.bus.pull import Pull

__all__ = ["ApiError", "Bus", "BusSettings", "Delivery", "NatsBus", "Page", "Pull", "RawMessage", "TooManySubjects"]
