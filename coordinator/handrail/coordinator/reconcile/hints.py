"""Hints to agents: flows that were halted or moved, which they read before they do anything for them.

A hint may get lost. It saves work that would have to be undone; the fold decides what counts. A server hands each hint
to the account of every agent, so the flows of a moment share one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

from handrail.mesh.permissions.accounts import HINT

_TOGETHER = timedelta(milliseconds=20)
"""How long the first flow of a hint waits for others."""

_MOST = 500
"""Flows of one hint: 16 kB."""

Send = Callable[[str, bytes], None]
"""Sends a message on a subject without waiting."""


class Hints:
    """Collects flows and sends hints."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._flow_ids: list[str] = []

    def tell(self, flow_id: str) -> None:
        """Tells agents to read a flow."""
        self._flow_ids.append(flow_id)
        if len(self._flow_ids) == 1:
            asyncio.get_running_loop().call_later(_TOGETHER.total_seconds(), self._flush)
        elif len(self._flow_ids) >= _MOST:
            self._flush()

    def _flush(self) -> None:
        flow_ids, self._flow_ids = self._flow_ids, []
        if flow_ids:
            self._send(HINT, "\n".join(flow_ids).encode())
