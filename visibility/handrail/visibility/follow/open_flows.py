"""Folded flows that are open, or were until a moment ago: they save reads."""

from __future__ import annotations

from collections import OrderedDict

from handrail.mesh.flow import Flow
from handrail.mesh.fold import is_final

FlowKey = tuple[str, str]
"""Type and id of a flow."""

_MOST = 4096
"""The most flows kept; one of ten messages takes some 50 kB."""


class OpenFlows:
    """Keeps open flows; the one that was used longest ago goes first. A late message of another flow costs a read."""

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._flows: OrderedDict[FlowKey, Flow] = OrderedDict()

    def get(self, key: FlowKey) -> Flow | None:
        """Returns the flow, if it is kept."""
        return self._flows.get(key)

    def keep(self, key: FlowKey, flow: Flow) -> None:
        """Keeps a flow, or lets go of one that is over."""
        self._flows.pop(key, None)
        if is_final(flow):
            return
        self._flows[key] = flow
        if len(self._flows) > self._most:
            self._flows.popitem(last=False)
