"""Logging in at an identity provider: the device flow, and the login that is stored for later commands."""
