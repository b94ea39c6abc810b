"""Verification of bearer tokens: keys, rules for claims, revocations, and streams that end with their token."""

from handrail.coordinator.api.tokens.verifier import TokenVerifier, Verified

__all__ = ["TokenVerifier", "Verified"]
