"""Diagnoses an installation as one replica sees it, and recreates what can be recreated without loss.

Each finding has the name of a part and a text for people: `stream.FLOW`, `durable.track`, `lag.decide`, `loop.sweep`,
`broker`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from handrail.coordinator.reconcile.leases import Leases
from handrail.coordinator.reconcile.sweep_marks import Streams, read_streams
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh import telemetry
from handrail.mesh.bus import ApiError, NatsBus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams import FLOW, IRREPLACEABLE, TIMER, ensure_stream, what_is_wrong
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, ensure_durables, missing_durables
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

ACTIVATION_LEASE = "duty.templates"
"""The lease for changes to durables: the broker has no conditional update for them."""

_OF_THE_COORDINATOR = {DECIDE: FLOW, TRACK: FLOW, DUE: TIMER}

_SAMPLES = 6
"""The number of consecutive checks, ten seconds apart, in which a lag must grow before it is reported."""

_LAG = 1000
"""Messages; a smaller backlog is a burst."""

_FAILURES = 3
"""Failures in a row; after fewer, a loop may well recover."""

Findings = dict[str, str]


class Diagnosis:
    """Checks the broker's parts and this replica's own loops.

    `refused_pulls` maps the durables that the broker does not let this replica consume to the reason. `forget` is
    called when the FLOW stream was replaced, because what was remembered of its flows is no longer true.
    """

    def __init__(
        self,
        bus: NatsBus,
        catalog: Catalog,
        leases: Leases,
        troubles: Troubles,
        *,
        refused_pulls: Callable[[], Mapping[str, str]],
        forget: Callable[[], None],
    ) -> None:
        self._bus = bus
        self._catalog = catalog
        self._leases = leases
        self._troubles = troubles
        self._refused_pulls = refused_pulls
        self._forget = forget
        self._refused_before: frozenset[str] = frozenset()
        self._streams_seen: Streams | None = None
        self._backlogs: dict[str, deque[int]] = {name: deque(maxlen=_SAMPLES) for name in _OF_THE_COORDINATOR}

    @property
    def is_refused_anew(self) -> bool:
        """Whether a durable can't be consumed that could be consumed at the last check."""
        return bool(self._refused_pulls().keys() - self._refused_before)

    async def examine(self) -> Findings:
        """Returns what is wrong now, by part; empty if all is well. Raises no error that the broker answers with."""
        findings: Findings = {}
        try:
            findings |= await self._streams()
            if not findings:
                await self._recognise()
                findings |= await self._durables()
                findings |= self._refused()
                findings |= await self._lags()
        except BrokerUnavailable as error:
            findings["broker"] = error.text
        except HandrailError as error:
            findings["permission" if error.reason == _PERMISSION else "broker"] = error.text
        return findings | self._loops()

    async def _streams(self) -> Findings:
        """Reports streams that are missing or misconfigured. Those that flows can do without are recreated."""
        wrong = await what_is_wrong(self._bus)
        for name in [name for name, text in wrong.items() if not text and name not in IRREPLACEABLE]:
            await ensure_stream(self._bus, name, like=FLOW)
            telemetry.count("made_anew", part=f"stream.{name}")
            log.error("stream %s was gone; it was recreated, and starts empty", name)
            del wrong[name]
        return {
            f"stream.{name}": text
            or f"stream {name} is gone: restore it from a backup. It is not recreated: its messages would be lost"
            for name, text in wrong.items()
        }

    async def _recognise(self) -> None:
        seen, self._streams_seen = self._streams_seen, await read_streams(self._bus)
        if seen is not None and self._streams_seen.flow_replaced(seen):
            log.error("stream FLOW was restored or recreated: it is a different stream, or lost messages")
            self._forget()

    async def _durables(self) -> Findings:
        """Recreates missing durables: everything is delivered again, nothing is left out."""
        missing = await missing_durables(self._bus, self._catalog.all())
        if not missing:
            return {}
        try:
            async with self._leases.hold(ACTIVATION_LEASE):
                await ensure_durables(self._bus, self._catalog.all())
        except HandrailError as error:
            return {f"durable.{name}": f"durable {name} is gone or lacks subjects: {error.text}" for name in missing}
        for name in missing:
            telemetry.count("made_anew", part=f"durable.{name}")
        log.error("durables %s were gone or lacked subjects; they were recreated", ", ".join(missing))
        return {}

    def _refused(self) -> Findings:
        """Reports durables that could not be consumed at two checks in a row; one may be a leader election."""
        refused = self._refused_pulls()
        before, self._refused_before = self._refused_before, frozenset(refused)
        return {f"durable.{name}": text for name, text in refused.items() if name in before}

    async def _lags(self) -> Findings:
        findings = {}
        for name, stream in _OF_THE_COORDINATOR.items():
            try:
                info = await self._bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{name}")
            except ApiError as error:
                if error.code != CONSUMER_NOT_FOUND:
                    raise
                findings[f"durable.{name}"] = f"durable {name} is gone"
                continue
            if self._grows(name, info):
                backlog = self._backlogs[name][-1]
                findings[f"lag.{name}"] = f"{backlog} messages wait for {name}, more at each check: add replicas"
        return findings

    def _grows(self, name: str, info: Mapping[str, Any]) -> bool:
        backlog = self._backlogs[name]
        backlog.append(int(info.get("num_pending", 0)))
        return len(backlog) == _SAMPLES and backlog[-1] > _LAG and _always_more(list(backlog))

    def _loops(self) -> Findings:
        """Reports loops that failed repeatedly, and what the broker refuses."""
        findings = {}
        for trouble in self._troubles:
            if trouble.error == "BROKER_PERMISSION":
                findings["permission"] = trouble.text
            elif not trouble.about and trouble.times >= _FAILURES:
                findings[f"loop.{trouble.loop}"] = f"failed {trouble.times} times in a row: {trouble.text}"
        return findings


_PERMISSION = ErrorReason.ERROR_REASON_BROKER_PERMISSION


def _always_more(samples: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(samples))
