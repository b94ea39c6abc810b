"""Shared by the demos: an installation as processes, a story of what happens, people who vote.

A demo has a template, agents, and a runner. The runner plays them on a `Stage` and audits the result. `command.perform`
handles the rest of a demo's command: the folder and the exit status.
"""
