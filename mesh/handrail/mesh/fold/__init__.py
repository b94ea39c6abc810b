"""The fold: a flow's state as a pure function of its template and its events in stream order.

One fold for coordinator, agents, views and tests. A message that comes too late, lost a race, or may not say what it
says is void by the rules here, for every reader alike; `Flow.void` keeps why.
"""

from handrail.mesh.fold.evolve import NO_VERSIONS, Versions, advance, begin, evolve, fold, pinned_version
from handrail.mesh.fold.migration import migration_of
from handrail.mesh.fold.status import is_complete, is_final, settled, status

__all__ = [
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
]
