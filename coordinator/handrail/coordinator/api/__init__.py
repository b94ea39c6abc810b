"""The coordinator's gRPC API: one server, its services and what surrounds every call.

A call passes, outermost first:

1. `Tracing` and `ErrorGuard`: a span, and errors as rich statuses;
2. `RefusalAudit`: the log of refused calls;
3. `AuthGuard`: a verified token, and the role that `access` lists for the method;
4. `DeadlineGuard` and `ContractGuard`: a time limit, and a request that satisfies its contract;
5. a service, which reads flows through `flow_lookup`, acts through `reconcile` and answers with `views`.

A process that runs a `Server`:

1. calls `start`, and `set_serving` once its replica is prepared;
2. calls `tell` with the findings of the replica's diagnosis (`Health` does);
3. calls `drain` before it closes the bus.
"""
