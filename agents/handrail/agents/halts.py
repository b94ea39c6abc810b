"""Which flows are halted, as far as a worker knows: heard as it happens, and read from the stream after every gap."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from nats.aio.msg import Msg

from handrail.mesh.accounts import HALT_HINT
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW

_logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Halts:
    """The flows that are known to be halted. A hint: on a hit the flow is read, and the fold decides."""

    flow_ids: set[str] = field(default_factory=set)

    def heard(self, message: Msg) -> None:
        """A `FlowHalted` was published."""
        self.add(message.subject)

    def add(self, subject: str) -> None:
        """Take up the flow of a subject."""
        tokens = subject.split(".", 3)
        if len(tokens) == 4:
            self.flow_ids.add(tokens[2])


class HaltWatch:
    """Keeps `Halts` true: `start` before the first pull."""

    def __init__(self, bus: Bus, halts: Halts, flow_types: Callable[[], Iterable[str]]) -> None:
        self._bus = bus
        self._halts = halts
        self._flow_types = flow_types
        self._reloading: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Listen, then read what was halted before; in this order nothing falls in between."""
        await self._bus.subscribe(HALT_HINT, self._halts.heard)
        await self.load()
        self._bus.connection.on_reconnected.append(self._reload)

    async def load(self) -> None:
        """Read which flows were halted so far."""
        for flow_type in self._flow_types():
            subjects = HALT_HINT.replace("flow.*.", f"flow.{flow_type}.", 1)
            offset = 0
            while True:
                query = {"subjects_filter": subjects, "offset": offset}
                info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", query)
                page = info["state"].get("subjects") or {}
                for subject in page:
                    self._halts.add(subject)
                offset += len(page)
                if not page or offset >= int(info.get("total", 0)):
                    break

    def _reload(self) -> None:
        """What was halted while the connection was gone was not heard."""
        task = asyncio.create_task(self._load_again(), name="halted flows")
        self._reloading.add(task)
        task.add_done_callback(self._reloading.discard)

    async def _load_again(self) -> None:
        try:
            await self.load()
        except HandrailError as error:
            _logger.warning("can't read which flows are halted: %s; the coordinator still guards them", error.text)
