"""What the demos share to play on: an installation as processes, a story of what happens, people at a desk.

A demo has a template, agents, and a runner that plays them on a `Stage` and audits what they left. `command.perform` is
what its command does around that: the folder, the exit status.
"""
