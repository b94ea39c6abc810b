"""Reconciles flows: what wakes the coordinator up, and what it does until `decide` returns None.

Three durable consumers (`decide`, `track`, `due`), the sweep and `operator_actions` all end in `Reconciler`. Leases
save double work; correctness rests on the expected sequence of each append and on the fold.

A process that runs a `Replica`:

1. calls `prepare` once, which creates or checks streams and durables;
2. awaits `run` until it is told to stop;
3. meanwhile calls `examine` of its `diagnosis` regularly, and reports the findings as its health.
"""
