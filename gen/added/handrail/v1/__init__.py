"""Handrail's own contracts, generated from `proto/handrail/v1`: events, templates, and the coordinator's services."""
