"""Contracts: the messages that a flow type speaks, learned from stored descriptors."""

from handrail.mesh.contracts.contracts import Contracts, descriptor_set_for, pack

__all__ = ["Contracts", "descriptor_set_for", "pack"]
