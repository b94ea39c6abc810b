"""Presence: a beat that says that somebody handles timers, and the record of the times in which nobody did.

The beat is one key in the bucket `leases`. It says when the one before was stored, and is itself dated by the broker:
no clock of a coordinator enters. A beat is stored only on top of one whose gap is on record, so that a crash in between
loses none. Each gap is appended to the stream ABSENCE once, by whoever finds it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import time
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from google.protobuf.message import DecodeError

from handrail.mesh import streams
from handrail.mesh.bus import ApiError, Bus, RawMessage
from handrail.mesh.bus.api import MESSAGE_NOT_FOUND
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.flow.absence import ABSENT_AFTER, Absence
from handrail.mesh.streams.durables import DUE
from handrail.mesh.waiting import pause
from handrail.mesh.wire.envelope import from_timestamp, timestamp
from handrail.v1 import decision_pb2 as pb

log = logging.getLogger(__name__)

_BEAT = f"$KV.{streams.LEASES_BUCKET}.presence"
_NEVER = (-float("inf"), -float("inf"))


class Present(NamedTuple):
    """What is known of the present: a time that has come, by the broker's clock, and when nobody was there."""

    time: datetime
    absences: tuple[Absence, ...] = ()


class Presence:
    """What one replica does for it, and knows of it. `absent_after`: a shorter silence is no absence."""

    def __init__(self, bus: Bus, *, absent_after: timedelta = ABSENT_AFTER) -> None:
        self._bus = bus
        self._absent_after = absent_after
        self._beating = asyncio.Lock()
        self._last: RawMessage | None = None
        self._present = Present(datetime.min.replace(tzinfo=UTC))
        self._beaten = _NEVER
        self._knows_absences = False
        self._handed_out = -1

    async def present(self) -> Present:
        """The present, once the last beat of this replica is fresh and every absence before it is known.

        Nothing may be judged to be late on less. Without I/O, but after a start, or where this replica was silent.
        Raises what `Bus.publish` and `Bus.request_json` raise.
        """
        if not self._is_fresh():
            async with self._beating:
                if not self._is_fresh():
                    await self._beat()
        return self._present

    async def run(self, stopping: asyncio.Event) -> None:
        """Beat while timers are handled, by this replica or another, until `stopping` is set."""
        while not stopping.is_set():
            try:
                if await self._timers_are_handled():
                    async with self._beating:
                        await self._beat()
            except HandrailError as error:
                log.warning("no sign of presence this time: %s", error.text)
            await pause(stopping, self._absent_after / 3)

    async def _timers_are_handled(self) -> bool:
        """Whether every timer that fired was handed out, or more of them than the last time."""
        info = await self._bus.request_json(f"$JS.API.CONSUMER.INFO.{streams.TIMER}.{DUE}")
        before, self._handed_out = self._handed_out, int(info["delivered"]["consumer_seq"])
        return not info.get("num_pending") or self._handed_out > before

    def _is_fresh(self) -> bool:
        """By two clocks: one stands still while the machine sleeps, the other can be set."""
        ages = [now - then for now, then in zip(_clocks(), self._beaten, strict=True)]
        return all(0 <= age < self._absent_after.total_seconds() for age in ages)

    async def _beat(self) -> None:
        clocks = _clocks()
        self._knows_absences = self._knows_absences and self._is_fresh()
        while not await self._add_beat():
            """Another replica's came first: this one goes on top of it."""
        absences = self._present.absences if self._knows_absences else await self._read_absences()
        if self._last is not None:
            self._present, self._beaten, self._knows_absences = Present(self._last.time, absences), clocks, True

    async def _add_beat(self) -> bool:
        said, expected = pb.Absence(), 0
        if self._last is not None:
            said.start_time.CopyFrom(timestamp(self._last.time))
            expected = self._last.sequence
        try:
            await self._bus.publish(_BEAT, said.SerializeToString(), expected_sequence=expected)
        except WrongSequence:
            added = False
        else:
            added = True
        last = await self._bus.last_on_leader(streams.LEASES, _BEAT)
        if last is not None and (gap := _gap(last)) is not None and gap.end - gap.start > self._absent_after:
            await self._record(gap)
            self._knows_absences = False
        self._last = last
        return added

    async def _record(self, gap: Absence) -> None:
        message = pb.Absence(start_time=timestamp(gap.start), end_time=timestamp(gap.end))
        subject = f"absence.{int(gap.start.timestamp() * 1000)}"
        with contextlib.suppress(WrongSequence):  # it is on record
            await self._bus.publish(subject, message.SerializeToString(), expected_sequence=0)
            log.warning("no coordinator was there from %s to %s: that time does not count", gap.start, gap.end)

    async def _read_absences(self) -> tuple[Absence, ...]:
        """All that are on record, as the stream's leader has them."""
        absences: list[Absence] = []
        sequence = 0
        while True:
            request = {"seq": sequence + 1, "next_by_subj": "absence.>"}
            try:
                answer = await self._bus.request_json(f"$JS.API.STREAM.MSG.GET.{streams.ABSENCE}", request)
            except ApiError as error:
                if error.code == MESSAGE_NOT_FOUND:
                    return tuple(absences)
                raise
            sequence = int(answer["message"]["seq"])
            absence = pb.Absence.FromString(base64.b64decode(answer["message"].get("data", "")))
            absences.append(Absence(from_timestamp(absence.start_time), from_timestamp(absence.end_time)))


def _gap(beat: RawMessage) -> Absence | None:
    """The time between a beat and the one before it; None for the first one ever."""
    try:
        said = pb.Absence.FromString(beat.body)
        return Absence(from_timestamp(said.start_time), beat.time) if said.HasField("start_time") else None
    except (DecodeError, ValueError, OverflowError):
        log.warning("the sign of presence at %s can't be read: what was before it is not known", beat.time)
        return None


def _clocks() -> tuple[float, float]:
    return (time.monotonic(), time.time())
