"""Agents: what waits for them, who listens, what they owe and did unforeseen."""
