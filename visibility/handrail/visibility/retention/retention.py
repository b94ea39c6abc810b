"""The loop that takes finished flows out of FLOW: in one process at a time, flow by flow, at a limited rate.

1. What may leave is read, judged, compared with the archive, and announced in KEY.
2. A minute later, if nothing has come since, its verdict is stored in the archive; then it is purged.
3. Another minute later it is looked at again (`latecomers`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions.accounts import RETENTION_LEASE
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.lease_bucket import LeaseBucket
from handrail.mesh.streams.leases import Leases
from handrail.mesh.template import Template
from handrail.mesh.waiting import pause
from handrail.visibility.archive.errors import Damaged
from handrail.visibility.archive.folder import LockedFolder
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.verdict_log import VerdictLog
from handrail.visibility.index.candidates import Candidate, candidates
from handrail.visibility.retention.audit import Audit
from handrail.visibility.retention.departure import Departures
from handrail.visibility.retention.gate import Handled, handled
from handrail.visibility.retention.latecomers import Latecomers
from handrail.visibility.retention.origin import Origin
from handrail.visibility.retention.policy import Policy
from handrail.visibility.retention.purges import Purges
from handrail.visibility.retention.shelf import Shelf
from handrail.visibility.retention.waiting_room import WaitingRoom

log = logging.getLogger(__name__)

_EVERY = timedelta(seconds=10)
_BATCH = 100
"""Flows whose verdicts are stored together, before the first of them is purged."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How long flows stay, and how many may leave in a second."""

    policy: Policy
    rate: int = 200


class Retention:
    """Purges what may leave, as the broker's user `retention`. `shelf` is that of the same archive and index."""

    def __init__(
        self, bus: NatsBus, folder: LockedFolder, engine: Engine, shelf: Shelf, settings: Settings, *, holder: str
    ) -> None:
        self._bus = bus
        self._folder = folder
        self._engine = engine
        self._shelf = shelf
        self._settings = settings
        self._store = FlowStore(bus, Catalog(bus))
        reader = Reader(folder)
        self._departures = Departures(bus, self._store, reader)
        self._origin = Origin(bus, folder, reader)
        self._audit = Audit(bus, folder)
        self._latecomers = Latecomers(bus, self._store)
        self._waiting = WaitingRoom()
        self._leases = Leases(LeaseBucket(bus), holder=holder)
        self._verdicts: VerdictLog | None = None
        self._purges: Purges | None = None
        self._said = ""

    async def run(self, stopping: asyncio.Event) -> None:
        """Works until `stopping` is set; what fails is told, and tried again. Raises Damaged."""
        while not stopping.is_set():
            try:
                async with self._leases.hold(RETENTION_LEASE):
                    purged = await self.round(stopping.is_set)
                if purged:
                    log.info("%d flows were archived and purged", purged)
            except Damaged:
                raise
            except HandrailError as error:
                self._say(error.text)
            await pause(stopping, _EVERY)

    async def round(self, is_stopping: Callable[[], bool] = lambda: False) -> int:
        """Purges what was announced a minute ago, and announces what may leave. Returns how many flows were purged."""
        state = await handled(self._bus)
        if not state.purgeable:
            self._say("FLOW can't be purged, so finished flows stay: `handrail admin enable-retention` changes it")
            return 0
        if not await self._origin.is_flow():
            if self._folder.firsts():
                self._say(f"{FLOW} is another stream than the archive's, or was restored: nothing is purged")
            return 0
        verdicts, purges = await asyncio.to_thread(self._opened)
        taken = await self._shelf.catch_up()
        if taken != verdicts.count:
            self._say(f"the index has {taken} of {verdicts.count} verdicts: nothing is purged until it has all")
            return 0
        gate = state._replace(sequence=min(state.sequence, await self._audit.record()))
        if self._audit.problem:
            self._say(f"{self._audit.problem}; nothing behind it is purged")
        await self._store.catalog.refresh()
        self._waiting.start(now=state.now)
        await self._latecomers.look(state.now, gate=gate.sequence)
        purged = await purges.go_on(is_stopping)
        purged += await self._purge(verdicts, purges, gate, is_stopping)
        await self._announce(gate)
        self._waiting.start(now=(await handled(self._bus)).now)
        return purged

    def _opened(self) -> tuple[VerdictLog, Purges]:
        """The verdicts, and how far their flows are purged."""
        if self._verdicts is None or self._purges is None:
            self._verdicts = VerdictLog(self._folder)
            some = self._folder, self._verdicts, self._departures, self._shelf, self._latecomers
            self._shelf.count = self._verdicts.count
            self._purges = Purges(*some, rate=self._settings.rate)
        return self._verdicts, self._purges

    async def _announce(self, gate: Handled) -> None:
        """Judges the flows that may leave, and records what would begin them again."""
        for template in self._store.catalog.all():
            age = self._settings.policy.age(template)
            if age is None:
                continue
            async for some in self._candidates(template, gate, age):
                new = [each for each in some if each.first_sequence not in self._waiting]
                judged = await self._departures.announce(template.name, new, age=age, gate=gate)
                self._waiting.take(judged)
                if self._waiting.is_full:
                    return

    async def _purge(self, verdicts: VerdictLog, purges: Purges, gate: Handled, is_stopping: Callable[[], bool]) -> int:
        """Purges the flows that waited and have not changed; their verdicts are stored before."""
        purged = 0
        while not is_stopping() and (waited := self._waiting.next(_BATCH, now=gate.now)):
            leaving = await self._departures.unchanged(waited)
            if not leaving:
                continue
            await asyncio.to_thread(verdicts.append, leaving)
            self._shelf.count = verdicts.count
            purged += await purges.go_on(is_stopping)
            await self._shelf.catch_up()
        return purged

    async def _candidates(
        self, template: Template, gate: Handled, age: timedelta
    ) -> AsyncIterator[Sequence[Candidate]]:
        """The flows that ended long enough ago, by the index, page by page."""
        after: Candidate | None = None
        before, up_to = gate.now - age, gate.sequence
        while some := await asyncio.to_thread(
            candidates, self._engine, template, before=before, up_to=up_to, after=after, most=_BATCH
        ):
            yield some
            after = some[-1]

    def _say(self, text: str) -> None:
        """Logs what is in the way, once until it changes."""
        if text != self._said:
            log.warning("retention: %s", text)
        self._said = text
