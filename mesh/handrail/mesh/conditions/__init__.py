"""Conditions: CEL over messages, for gates, rules and joins. Only `expression` knows the engine."""
