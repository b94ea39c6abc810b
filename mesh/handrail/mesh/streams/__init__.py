"""The streams and their contents: flows, templates, quarantine, workers.

A caller

1. calls `ensure_streams`, then `durables.ensure_durables` and `quarantine_streams.ensure_quarantines`, at start-up; all
   are idempotent, and change no stream;
2. passes `at_least` to each read of a flow, the highest sequence it knows: any replica may answer, and replicas lag;
3. uses the reads from the leader (`load_newest`, `refresh_from_leader`) before it writes or refuses something;
4. appends with `FlowStore.append` to the flow it decided on, and after WrongSequence reads and decides again.
"""

from handrail.mesh.streams.provisioning import (
    NEEDED_API_LEVEL,
    NEEDED_VERSION,
    actual_configs,
    check_level,
    ensure_stream,
    ensure_streams,
    require_server,
    why_broken,
)
from handrail.mesh.streams.streams import (
    ABSENCE,
    ABSENCES_KEPT,
    AUDIT,
    DELEGATION,
    FLOW,
    IRREPLACEABLE,
    KEY,
    LEASES,
    LEASES_BUCKET,
    QUARANTINE,
    TEMPLATE,
    TIMER,
    WORKER,
    Config,
    quarantine_stream,
    stream_configs,
)

__all__ = [
    "ABSENCE",
    "ABSENCES_KEPT",
    "AUDIT",
    "DELEGATION",
    "FLOW",
    "IRREPLACEABLE",
    "KEY",
    "LEASES",
    "LEASES_BUCKET",
    "NEEDED_API_LEVEL",
    "NEEDED_VERSION",
    "QUARANTINE",
    "TEMPLATE",
    "TIMER",
    "WORKER",
    "Config",
    "actual_configs",
    "check_level",
    "ensure_stream",
    "ensure_streams",
    "quarantine_stream",
    "require_server",
    "stream_configs",
    "why_broken",
]
