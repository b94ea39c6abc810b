"""The history checker: whether what the streams hold, and what callers were told, keeps the promises.

A second reading of the streams beside the fold, written from `docs/state-machine.md` and `docs/wire.md`. It shares no
code with the fold, the stores or the coordinator: only the generated contracts. It knows no time-outs and evaluates no
conditions; where it can't judge a flow it says so, and never guesses.

- `record`: subjects and bodies, decoded anew
- `plan`: what of a template the rules need
- `account`, `approvals`, `standing`: what one flow's messages come to
- `rules`: the invariants of one flow
- `acknowledged`: what callers were told, against what is there
- `waiting`: whether an open flow waits visibly, as the installation tells it
- `check`: all of it over a whole stream
"""
