"""Tests flows in memory: agents and the coordinator's real decisions, with a virtual clock and no server."""

from handrail.testing.templates import load_template
from handrail.testing.view import FlowView
from handrail.testing.world import World

__all__ = ["FlowView", "World", "load_template"]
