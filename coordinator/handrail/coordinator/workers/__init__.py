"""Processes for heavy work on what callers send: they are killed at a limit of time or memory."""
