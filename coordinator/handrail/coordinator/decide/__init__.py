"""What the coordinator appends next to a flow, or None. Pure."""

from handrail.coordinator.decide.decide import agents_due, decide

__all__ = ["agents_due", "decide"]
