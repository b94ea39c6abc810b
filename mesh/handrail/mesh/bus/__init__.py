"""The bus: everything that the rest of Handrail does with the broker."""

from handrail.mesh.bus.bus import ApiError, Bus, BusSettings, Delivery, Page, Pull, RawMessage, TooManySubjects

__all__ = ["ApiError", "Bus", "BusSettings", "Delivery", "Page", "Pull", "RawMessage", "TooManySubjects"]
