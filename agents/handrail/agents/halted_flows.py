"""Which flows a worker must read before it starts anything: flows that were halted, or moved to another version. The
worker hears of them as it happens, and reads them from the stream after every gap."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions.accounts import HINT
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.stream_walk import listed_subjects
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import FlowHalted, FlowMigrated

_logger = logging.getLogger(__name__)

_ID = re.compile("[0-9a-f]{32}")

LOOKED_AT = tuple(
    f"flow.*.*.{Kind.DECISION}.{COORDINATOR}.*.{decision.DESCRIPTOR.full_name}"
    for decision in (FlowHalted, FlowMigrated)
)
"""The subjects of decisions whose flows a worker reads before it starts anything for them."""


@dataclass(slots=True)
class HaltedFlows:
    """The flows that are known to be halted or moved. On a hit the worker reads the flow, and the fold decides."""

    flow_ids: set[str] = field(default_factory=set)
    tell: Callable[[str], None] | None = None
    """Called with each flow that is added."""

    def heard(self, message: Message) -> None:
        """Handles a hint: the ids of flows, one a line."""
        for flow_id in message.data.decode(errors="replace").split("\n"):
            if _ID.fullmatch(flow_id):
                self.add(flow_id)

    def add(self, flow_id: str) -> None:
        """Adds a flow."""
        self.flow_ids.add(flow_id)
        if self.tell is not None:
            self.tell(flow_id)


class HaltWatch:
    """Keeps `HaltedFlows` up to date: call `start` before the first pull."""

    def __init__(self, bus: NatsBus, hints: HaltedFlows, flow_types: Callable[[], Iterable[str]]) -> None:
        self._bus = bus
        self._hints = hints
        self._flow_types = flow_types
        self._reloading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribes, then reads the earlier decisions; in this order none is missed."""
        await self._bus.subscribe(HINT, self._hints.heard)
        await self.load()
        self._bus.connection.on_reconnected.append(self._reload)

    async def load(self) -> None:
        """Reads which flows were halted or moved so far."""
        for flow_type in self._flow_types():
            for decided in LOOKED_AT:
                subjects = decided.replace("flow.*.", f"flow.{flow_type}.", 1)
                for subject in await listed_subjects(self._bus, FLOW, subjects):
                    self._hints.add(subject.split(".")[2])

    def _reload(self) -> None:
        """Reads again after a lost connection, because decisions were not heard meanwhile."""
        task = asyncio.create_task(self._load_again(), name="flows to look at")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _load_again(self) -> None:
        try:
            await self.load()
        except HandrailError as error:
            _logger.warning("can't read which flows are halted: %s; the coordinator still guards them", error.text)
