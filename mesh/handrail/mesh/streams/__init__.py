"""The streams and their contents: flows, templates, quarantine, workers.

A caller

1. calls `ensure_streams`, then `durables.ensure_durables`, at start-up; both are idempotent;
2. passes `at_least` to each read of a flow, the highest sequence it knows: any replica may answer, and replicas lag;
3. uses the reads from the leader (`load_newest`, `refresh_from_leader`) before it writes or refuses something;
4. appends with `FlowStore.append` to the flow it decided on, and after WrongSequence reads and decides again.
"""

from handrail.mesh.streams.provisioning import (
    NEEDED_API_LEVEL,
    NEEDED_VERSION,
    FlowLimits,
    check_level,
    differences,
    ensure_stream,
    ensure_streams,
    require_server,
    what_is_wrong,
)
from handrail.mesh.streams.streams import (
    ABSENCE,
    ABSENCES_KEPT,
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
    stream_configs,
)

__all__ = [
    "ABSENCE",
    "ABSENCES_KEPT",
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
    "FlowLimits",
    "check_level",
    "differences",
    "ensure_stream",
    "ensure_streams",
    "require_server",
    "stream_configs",
    "what_is_wrong",
]
