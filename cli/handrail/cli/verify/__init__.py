"""The history checker: verifies that the streams, and what callers were told, keep the promises.

It is a second reading of the streams, written from `docs/state-machine.md` and `docs/wire.md`. It shares no code with
the fold, the stores or the coordinator, only the generated contracts. It knows no time-outs and evaluates no
conditions; if it can't judge a flow, it says so and never guesses.

- `record`: subjects and bodies, decoded independently
- `plan`: the part of a template that the rules need
- `account`, `approvals`, `standing`: the state that one flow's messages lead to
- `rules`: the invariants of one flow
- `acknowledged`: what callers were told, against what is stored
- `waiting`: whether an open flow waits visibly, as the installation reports it
- `check`: all of it over a whole stream
"""
