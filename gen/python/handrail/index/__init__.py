"""Contracts between Handrail's own processes: how a coordinator asks the index of flows."""
