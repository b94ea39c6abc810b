"""The fold: computes the state of a flow from its template and its messages. Pure: no clock, no I/O.

Coordinator, agents, views and tests all use this fold. It marks a message as void if it comes too late, loses a race,
or exceeds its sender's rights. All readers come to the same result; `Flow.void` holds the reasons.

A caller

1. reads `pinned_version` from the history, and begins with that version of the template;
2. passes messages in stream order, without gaps: `evolve` takes one, `advance` and `fold` take several;
3. folds a flow whole until it has begun (`Flow.first`): what comes may pin it to another version. Only then does it
   keep the flow, and go on with new messages;
4. passes the `versions` that `FlowMigrated` messages of the history name (`migration_of` finds them);
5. treats a returned `Flow` as immutable: each call returns a new one.
"""

from handrail.mesh.fold.evolve import NO_VERSIONS, Versions, advance, begin, evolve, fold, pinned_version
from handrail.mesh.fold.migration import migration_of
from handrail.mesh.fold.status import FINAL, is_complete, is_final, settled, status, status_reason

__all__ = [
    "FINAL",
    "NO_VERSIONS",
    "Versions",
    "advance",
    "begin",
    "evolve",
    "fold",
    "is_complete",
    "is_final",
    "migration_of",
    "pinned_version",
    "settled",
    "status",
    "status_reason",
]
