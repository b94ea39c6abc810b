"""Which flows a worker must read before it starts anything: flows that were halted, or moved to another version. The
worker hears of them as it happens, and reads them from the stream after every gap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions.accounts import HINTS
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.stream_walk import listed_subjects

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class HaltedFlows:
    """The flows that are known to be halted or moved. On a hit the worker reads the flow, and the fold decides."""

    flow_ids: set[str] = field(default_factory=set)
    tell: Callable[[str], None] | None = None
    """Called with each flow that is added."""

    def heard(self, message: Message) -> None:
        """Handles a `FlowHalted` or `FlowMigrated` that was published."""
        self.add(message.subject)

    def add(self, subject: str) -> None:
        """Adds the flow of a subject."""
        tokens = subject.split(".", 3)
        if len(tokens) == 4:
            self.flow_ids.add(tokens[2])
            if self.tell is not None:
                self.tell(tokens[2])


class HaltWatch:
    """Keeps `HaltedFlows` up to date: call `start` before the first pull."""

    def __init__(self, bus: NatsBus, hints: HaltedFlows, flow_types: Callable[[], Iterable[str]]) -> None:
        self._bus = bus
        self._hints = hints
        self._flow_types = flow_types
        self._reloading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Subscribes, then reads the earlier decisions; in this order none is missed."""
        for hint in HINTS:
            await self._bus.subscribe(hint, self._hints.heard)
        await self.load()
        self._bus.connection.on_reconnected.append(self._reload)

    async def load(self) -> None:
        """Reads which flows were halted or moved so far."""
        for flow_type in self._flow_types():
            for hint in HINTS:
                decided = hint.replace("flow.*.", f"flow.{flow_type}.", 1)
                for subject in await listed_subjects(self._bus, FLOW, decided):
                    self._hints.add(subject)

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
