"""Contracts: the message types of a flow type, built from stored descriptors; validation and JSON."""

from handrail.mesh.contracts.contracts import Contracts, descriptor_set_for, pack

__all__ = ["Contracts", "descriptor_set_for", "pack"]
