"""Folded flows that are open, or were until a moment ago: they save reads."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from handrail.mesh.flow import Flow
from handrail.visibility.index.rows import FlowRows

FlowKey = tuple[str, str]
"""Type and id of a flow."""

MOST = 40_000
"""The most messages of the flows kept; ten messages take some 50 kB."""


class Kept(NamedTuple):
    """A flow, and its rows in the index."""

    flow: Flow
    rows: FlowRows


class OpenFlows:
    """Keeps open flows; the one that was used longest ago goes first. A late message of another flow costs a read."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._flows: OrderedDict[FlowKey, Kept] = OrderedDict()
        self._messages = 0

    def get(self, key: FlowKey) -> Kept | None:
        """Returns the flow, if it is kept."""
        return self._flows.get(key)

    def keep(self, key: FlowKey, flow: Flow, rows: FlowRows) -> None:
        """Keeps a flow, or lets go of one that is over, or has not begun: what comes may pin it to another version."""
        self.drop(key)
        if rows.is_final or flow.first is None:
            return
        self._flows[key] = Kept(flow, rows)
        self._messages += flow.message_count
        while self._messages > self._most and len(self._flows) > 1:
            self.drop(next(iter(self._flows)))

    def drop(self, key: FlowKey) -> None:
        """Lets go of a flow."""
        kept = self._flows.pop(key, None)
        if kept is not None:
            self._messages -= kept.flow.message_count
