"""Conditions: CEL over messages, for gates, rules and joins. `expression` and `environments` know the engine."""
