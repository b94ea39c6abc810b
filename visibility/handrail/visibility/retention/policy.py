"""Which flows may leave FLOW, and when. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from handrail.mesh.flow import Flow
from handrail.mesh.fold import is_final
from handrail.mesh.streams.purged import LEAST_AGE
from handrail.mesh.template import Template

LEAST = LEAST_AGE
"""The shortest time that a finished flow stays: what was published about it is stored by then, or refused."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long finished flows stay if their template does not say it; None: for ever. All stay for `least`."""

    default: timedelta | None
    least: timedelta = LEAST

    def age(self, template: Template) -> timedelta | None:
        """How long finished flows of a version of a template stay after their last message; None: for ever."""
        if template.keep_forever:
            return None
        age = self.default if template.retention is None else template.retention
        return None if age is None else max(age, self.least)


def why_kept(flow: Flow, *, age: timedelta, now: datetime, gate: int) -> str:
    """Why a flow may not leave yet; empty if it may. `gate` is the sequence up to which everything is safe."""
    if flow.first is None or flow.last_time is None:
        return "it has no first event"
    if not is_final(flow):
        return "it is not over"
    if flow.open_outcomes():
        return "an outcome is unknown"
    if flow.escalations or flow.pending_resolution is not None:
        return "a matter waits for a person"
    if now - flow.last_time < age:
        return "its last message is too young"
    if flow.last_sequence > gate:
        return "its last message is not archived, or not handled"
    return ""
