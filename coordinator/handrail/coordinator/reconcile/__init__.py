"""Reconciling flows: what wakes the coordinator up, and what it does with a flow until nothing is left to decide."""
