"""A live worker's report about itself: which versions its handlers fit, and which handlers are stuck."""

from __future__ import annotations

import asyncio
import logging
import uuid

from handrail.agents.bindings import Bindings
from handrail.agents.in_flight import InFlight
from handrail.agents.overseer import Overseer
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import workers
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.streams import WORKER_MESSAGE_BYTES
from handrail.mesh.waiting import pause
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion

_logger = logging.getLogger(__name__)

_TEXTS = (1024, 128, 16)
_STUCK = 100
"""The limits of a report: characters of a text, fewer if the report gets too large otherwise, and stuck handlers."""

_MOST_BYTES = WORKER_MESSAGE_BYTES // 2
"""The size of a report that has room for what the broker adds."""


class Beat:
    """Reports that a worker is live: every ten seconds, and at once after `tell`."""

    def __init__(self, bus: Bus, *, catalog: Catalog, bindings: Bindings, overseer: Overseer, desk: InFlight) -> None:
        self._bus = bus
        self._catalog = catalog
        self._bindings = bindings
        self._overseer = overseer
        self._desk = desk
        self._worker = uuid.uuid4().hex
        self._wake = asyncio.Event()
        self._refusal = ""

    def tell(self) -> None:
        """Reports at once, because the worker has looked at new templates."""
        self._wake.set()

    async def run(self) -> None:
        """Reports repeatedly until cancelled. A failure is logged once: no work depends on reports."""
        while True:
            self._wake.clear()
            try:
                await workers.announce(self._bus, self._bindings.agent, self._worker, self._state())
                self._refusal = ""
            except HandrailError as error:
                if error.text != self._refusal:
                    self._refusal = error.text
                    _logger.warning("this worker can't report that it is live: %s", error.text)
            await pause(self._wake, workers.BEAT)

    def _state(self) -> WorkerState:
        states = (self._state_in(characters) for characters in _TEXTS)
        return next((each for each in states if each.ByteSize() <= _MOST_BYTES), self._state_in(_TEXTS[-1]))

    def _state_in(self, characters: int) -> WorkerState:
        """The report, with texts of no more characters than these."""
        agent = self._bindings.agent
        stuck = [text[:characters] for text in self._overseer.stuck[:_STUCK]]
        state = WorkerState(stuck=stuck, in_hand=self._desk.in_hand)
        for template in self._catalog.all():
            if any(step.agent == agent for step in template.steps.values()):
                problem = next(iter(self._bindings.of(template).problems), "")
                state.versions.append(
                    WorkerVersion(flow_type=template.name, version=template.version, problem=problem[:characters])
                )
        return state
