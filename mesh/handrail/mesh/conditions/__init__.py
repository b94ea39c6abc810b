"""Conditions: CEL over messages, for gates, rules and joins. Only `expression` depends on the CEL engine."""
