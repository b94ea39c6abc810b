"""Health for load balancers and `handrail health`: not serving while any part is broken.

A notice, such as an agent that sends too much, names a part as well, and leaves the coordinator serving.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from handrail.coordinator.api.server import Server
from handrail.coordinator.reconcile.diagnosis import Diagnosis, Findings
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.waiting import pause

log = logging.getLogger(__name__)

_PROBE_EVERY = timedelta(seconds=2)
_PROBE_TIMEOUT = timedelta(seconds=2)
_EXAMINED_EACH = 5
"""The number of probes per full check."""


class Health:
    """Probes the stream every two seconds and checks everything every ten; sooner if a durable can't be consumed."""

    def __init__(
        self, bus: Bus, server: Server, diagnosis: Diagnosis, *, notices: Callable[[], Findings] = dict
    ) -> None:
        self._bus = bus
        self._server = server
        self._diagnosis = diagnosis
        self._notices = notices
        self._noticed: Findings = {}
        self._found: Findings = {}
        self._thorough: Findings = {}

    async def keep(self, stopping: asyncio.Event) -> None:
        """Reports health until `stopping` is set."""
        probes = 0
        while not stopping.is_set():
            if self._diagnosis.is_refused_anew:
                probes = 0  # and the next check at its usual time, because a leader election may be under way
            await self.look(thorough=probes % _EXAMINED_EACH == 0)
            probes += 1
            await pause(stopping, _PROBE_EVERY)

    async def look(self, *, thorough: bool) -> None:
        """Checks once and reports what changed."""
        findings = await self._probe()
        if not findings and (thorough or self._thorough):
            # Parts that were broken are checked again at once, so that they turn healthy as soon as they are repaired.
            self._thorough = await self._diagnosis.examine()
        findings, notices = findings or self._thorough, self._notices()
        if findings == self._found and notices == self._noticed:
            return
        for part, text in findings.items():
            if self._found.get(part) != text:
                log.warning("unhealthy: %s: %s", part, text)
        for part in self._found.keys() - findings.keys():
            log.warning("healthy again: %s", part)
        self._found, self._noticed = findings, notices
        await self._server.tell(findings, notices)

    async def _probe(self) -> Findings:
        try:
            await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=_PROBE_TIMEOUT)
        except HandrailError as error:
            if error.reason_name == "BROKER_UNAVAILABLE":
                return {"broker": error.text}
        return {}
