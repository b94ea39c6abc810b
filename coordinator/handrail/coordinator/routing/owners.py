"""The owner of a flow among the live replicas: rendezvous hashing. Pure.

Each flow has the replica with the highest hash of both names. When a replica comes or goes, only flows of that replica
move. See D. Thaler and C. Ravishankar, "Using name-based mappings to increase hit rates", 1998.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b


def owner(flow_id: str, replicas: Iterable[str]) -> str:
    """Returns the replica that owns a flow; raises ValueError without replicas."""
    return max(replicas, key=lambda replica: blake2b(f"{replica} {flow_id}".encode(), digest_size=8).digest())
