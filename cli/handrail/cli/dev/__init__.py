"""A whole installation on one machine, for development, demonstrations and tests.

Create a `DevStack` with `DevOptions`, then, from the main thread:

1. call `start`, which starts broker and coordinator and activates the templates;
2. call `start_agents` or `start_agent`;
3. call `poll` regularly: it restarts what died and updates the broker's permissions;
4. call `stop`, or leave the `with` block.
"""
