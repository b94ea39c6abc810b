"""Acts on a flow that need two persons: one asked for it, another has to confirm it. Plain values."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from google.protobuf.any_pb2 import Any

from handrail.mesh.template.persons import ActState
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.act_pb2 import Act

OPERATOR = "operator"
"""The role that asks for acts on flows, and confirms them."""


@dataclass(frozen=True, slots=True)
class PendingAct:
    """An act as `by` asked for it in the message `recorded`: `data` is the decision that does it.

    A confirmation counts up to `expires`, by the stream's time. `settled_by` confirmed, forced or withdrew it, in the
    message `settled`.
    """

    recorded: Recorded
    data: Any
    acts: frozenset[Act.ValueType]
    by: str
    digest: str
    expires: datetime
    state: ActState = ActState.PENDING
    settled_by: str = ""
    settle_reason: str = ""
    settled: Recorded | None = None

    @property
    def act_id(self) -> str:
        """Its id: the id of the event that asked for it."""
        return self.recorded.event_id
