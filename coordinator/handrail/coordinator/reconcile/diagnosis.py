"""Diagnoses an installation as one replica sees it, and recreates what can be recreated without loss.

Each finding has the name of a part and a text for people: `stream.FLOW`, `durable.track`, `lag.decide`, `loop.sweep`,
`broker`.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise

from handrail.coordinator.reconcile.configuration_watch import ConfigurationWatch
from handrail.coordinator.reconcile.sweep_marks import Streams, read_streams
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh import telemetry
from handrail.mesh.bus import NatsBus
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams import (
    FLOW,
    IRREPLACEABLE,
    Config,
    actual_configs,
    ensure_stream,
    quarantine_stream,
    stream_configs,
    why_broken,
)
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK, Durable, ensure_durables, read_durables
from handrail.mesh.streams.leases import Leases
from handrail.mesh.streams.provisioning import reset_command
from handrail.mesh.streams.quarantine_streams import agents_named, ensure_quarantine
from handrail.mesh.streams.streams import quarantined_agent
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

ACTIVATION_LEASE = "duty.templates"
"""The lease for changes to durables: the broker has no conditional update for them."""

_OF_THE_COORDINATOR = (DECIDE, TRACK, DUE)

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
    called when the FLOW stream was replaced, because what was remembered of its flows is no longer true. A durable that
    `is_crowded` by one agent lags without being broken: others' messages pass by.
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
        is_crowded: Callable[[str], bool] = lambda durable: False,
    ) -> None:
        self._bus = bus
        self._catalog = catalog
        self._leases = leases
        self._troubles = troubles
        self._refused_pulls = refused_pulls
        self._forget = forget
        self._is_crowded = is_crowded
        self._refused_before: frozenset[str] = frozenset()
        self._streams_seen: Streams | None = None
        self._watch = ConfigurationWatch()
        self._awaited: set[str] = set()
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
                durables = await read_durables(self._bus, self._catalog.all())
                self._watch.look(
                    {f"durable.{each.name}": _lasting(each) for each in durables if each.config is not None}
                )
                findings |= await self._lacking(durables)
                findings |= _misconfigured(durables)
                findings |= self._refused()
                findings |= self._lags(durables)
        except BrokerUnavailable as error:
            findings["broker"] = error.text
        except HandrailError as error:
            findings["permission" if error.reason == _PERMISSION else "broker"] = error.text
        return findings | self._loops()

    async def _streams(self) -> Findings:
        """Reports streams that are missing or misconfigured. Those that flows can do without are recreated."""
        quarantines = map(quarantine_stream, sorted(agents_named(self._catalog.all())))
        found = await actual_configs(self._bus, [*stream_configs(), *quarantines])
        self._watch.look({f"stream.{name}": config for name, config in found.items() if config is not None})
        findings = {}
        for name, config in found.items():
            if config is not None:
                if text := why_broken(name, config):
                    findings[f"stream.{name}"] = text
            elif name in IRREPLACEABLE:
                findings[f"stream.{name}"] = (
                    f"stream {name} is gone: restore it from a backup. It is not recreated: its messages would be lost"
                )
            else:
                findings |= await self._recreated(name)
        return findings

    async def _recreated(self, name: str) -> Findings:
        """Recreates a stream that is gone, unless the broker has no room for it, or does not know its agent yet."""
        try:
            if quarantined_agent(name):
                if not await ensure_quarantine(self._bus, name):
                    self._await(name)
                    return {}
            else:
                await ensure_stream(self._bus, name, like=FLOW)
        except HandrailError as error:
            if error.reason != ErrorReason.ERROR_REASON_STREAM_FULL:
                raise
            return {f"stream.{name}": error.text}
        self._awaited.discard(name)
        if quarantined_agent(name) and not self._watch.knows(f"stream.{name}"):
            log.info("stream %s was created: its agent is new", name)
            return {}
        telemetry.count("made_anew", part=f"stream.{name}")
        log.error("stream %s was gone; it was recreated, and starts empty", name)
        return {}

    def _await(self, name: str) -> None:
        """Tells, once, of a quarantine that can't be created yet."""
        if name not in self._awaited:
            self._awaited.add(name)
            log.warning(
                "stream %s is created once the broker knows its agent: generate its permissions, and reload", name
            )

    async def _recognise(self) -> None:
        seen, self._streams_seen = self._streams_seen, await read_streams(self._bus)
        if seen is not None and self._streams_seen.flow_replaced(seen):
            log.error("stream FLOW was restored or recreated: it is a different stream, or lost messages")
            self._forget()

    async def _lacking(self, durables: Iterable[Durable]) -> Findings:
        """Recreates missing durables: everything is delivered again, nothing is left out."""
        lacking = [each.name for each in durables if each.lacking]
        if not lacking:
            return {}
        try:
            async with self._leases.hold(ACTIVATION_LEASE):
                await ensure_durables(self._bus, self._catalog.all())
        except HandrailError as error:
            return {f"durable.{name}": f"durable {name} is gone or lacks subjects: {error.text}" for name in lacking}
        for name in lacking:
            telemetry.count("made_anew", part=f"durable.{name}")
        log.error("durables %s were gone or lacked subjects; they were recreated", ", ".join(lacking))
        return {}

    def _refused(self) -> Findings:
        """Reports durables that could not be consumed at two checks in a row; one may be a leader election."""
        refused = self._refused_pulls()
        before, self._refused_before = self._refused_before, frozenset(refused)
        return {f"durable.{name}": text for name, text in refused.items() if name in before}

    def _lags(self, durables: Iterable[Durable]) -> Findings:
        return {
            f"lag.{each.name}": f"{each.pending} messages wait for {each.name}, more at each check: add replicas"
            for each in durables
            if each.name in _OF_THE_COORDINATOR and self._grows(each) and not self._is_crowded(each.name)
        }

    def _grows(self, durable: Durable) -> bool:
        backlog = self._backlogs[durable.name]
        backlog.append(durable.pending)
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


def _misconfigured(durables: Iterable[Durable]) -> Findings:
    """Reports durables that drop messages, and those of the coordinator that are paused."""
    findings = {}
    for each in durables:
        if each.broken:
            listed = "; ".join(map(str, each.broken))
            findings[f"durable.{each.name}"] = (
                f"durable {each.name} was changed: {listed}; {reset_command(each.name)} mends it"
            )
        elif each.is_paused and each.name in _OF_THE_COORDINATOR:
            findings[f"durable.{each.name}"] = f"durable {each.name} is paused: resume it with the broker's own tools"
    return findings


def _lasting(durable: Durable) -> Config:
    """The configuration without the subjects, which activations add to."""
    config = durable.config or {}
    return {field: value for field, value in config.items() if field not in ("filter_subject", "filter_subjects")}


def _always_more(samples: Sequence[int]) -> bool:
    return all(before < after for before, after in pairwise(samples))
