"""Retention: takes finished flows out of FLOW once they are archived (docs/retention.md).

The archive keeps their messages, and a verdict on each; the index keeps their rows.
"""
