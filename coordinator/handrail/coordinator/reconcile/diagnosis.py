"""What is wrong with an installation, as one replica sees it; what can be made anew without a loss is made anew.

Every finding has the name of a part and a text for people: `stream.FLOW`, `durable.track`, `lag.decide`, `loop.sweep`,
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
"""Held by whoever changes durables: the broker has no conditional update of one."""

_OF_THE_COORDINATOR = {DECIDE: FLOW, TRACK: FLOW, DUE: TIMER}

_SAMPLES = 6
"""Looks, one each ten seconds, over which a lag has to grow at every one until it is told."""

_LAG = 1000
"""Messages; a backlog below that is a burst."""

_FAILURES = 3
"""In a row; before that a loop that broke may well go on."""

Findings = dict[str, str]


class Diagnosis:
    """Looks at the broker's parts and at this replica's own loops.

    `refused_pulls` are the durables that the broker does not let this replica consume, and why. `forget` is called when
    the FLOW stream turns out to be another one than before: what was remembered of its flows is not true any more.
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
        """Whether a durable can't be consumed that could be at the last look."""
        return bool(self._refused_pulls().keys() - self._refused_before)

    async def examine(self) -> Findings:
        """What is wrong now, by part; empty where all is well. Raises nothing that the broker answers."""
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
        """Streams that are gone or not as they should be. Those that flows can go on without are made anew."""
        wrong = await what_is_wrong(self._bus)
        for name in [name for name, text in wrong.items() if not text and name not in IRREPLACEABLE]:
            await ensure_stream(self._bus, name, like=FLOW)
            telemetry.count("made_anew", part=f"stream.{name}")
            log.error("stream %s was gone; it is made anew, and was empty at first", name)
            del wrong[name]
        return {
            f"stream.{name}": text
            or f"stream {name} is gone: restore it from a backup. Nothing is made in its place: what it held is lost"
            for name, text in wrong.items()
        }

    async def _recognise(self) -> None:
        seen, self._streams_seen = self._streams_seen, await read_streams(self._bus)
        if seen is not None and self._streams_seen.flow_replaced(seen):
            log.error("stream FLOW is not the one that it was, or lost messages: it was restored, or made anew")
            self._forget()

    async def _durables(self) -> Findings:
        """Durables that are gone are made anew: everything is delivered again, and nothing is left out."""
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
        log.error("durables %s were gone or lacked subjects; they are made anew", ", ".join(missing))
        return {}

    def _refused(self) -> Findings:
        """Durables that could not be consumed at the last look, and still can't: a leader may be being elected."""
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
                findings[f"lag.{name}"] = f"{backlog} messages wait for {name}, more at each look: add replicas"
        return findings

    def _grows(self, name: str, info: Mapping[str, Any]) -> bool:
        backlog = self._backlogs[name]
        backlog.append(int(info.get("num_pending", 0)))
        return len(backlog) == _SAMPLES and backlog[-1] > _LAG and _always_more(list(backlog))

    def _loops(self) -> Findings:
        """Loops that broke again and again, and what the broker refuses."""
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
