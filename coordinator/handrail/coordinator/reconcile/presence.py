"""Presence: a beat that shows that a coordinator handles timers, and the record of the periods in which none did.

The beat is one key in the bucket `leases`. It holds the broker's timestamp of the previous beat, and the broker dates
the beat itself: no coordinator's clock is involved. A beat is stored only on top of one whose gap is recorded, so a
crash in between loses no gap. Whoever finds a gap appends it to the stream ABSENCE, once.
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
    """The present as far as known: a time that has passed by the broker's clock, and the absences before it."""

    time: datetime
    absences: tuple[Absence, ...] = ()


class Presence:
    """This replica's beats and the absences that it knows. A silence shorter than `absent_after` is not an absence."""

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
        """Returns the present, once this replica's last beat is fresh and every absence before it is known.

        Nothing may be judged late on less. It needs no I/O except after a start or a silence of this replica. Raises
        what `Bus.publish` and `Bus.request_json` raise.
        """
        if not self._is_fresh():
            async with self._beating:
                if not self._is_fresh():
                    await self._beat()
        return self._present

    async def run(self, stopping: asyncio.Event) -> None:
        """Beats while this or another replica handles timers, until `stopping` is set."""
        while not stopping.is_set():
            try:
                if await self._timers_are_handled():
                    async with self._beating:
                        await self._beat()
            except HandrailError as error:
                log.warning("this beat of presence failed: %s", error.text)
            await pause(stopping, self._absent_after / 3)

    async def _timers_are_handled(self) -> bool:
        """Tells whether every fired timer was delivered, or more of them than at the last check."""
        info = await self._bus.request_json(f"$JS.API.CONSUMER.INFO.{streams.TIMER}.{DUE}")
        before, self._handed_out = self._handed_out, int(info["delivered"]["consumer_seq"])
        return not info.get("num_pending") or self._handed_out > before

    def _is_fresh(self) -> bool:
        """Checks two clocks: one stands still while the machine sleeps, the other can be set."""
        ages = [now - then for now, then in zip(_clocks(), self._beaten, strict=True)]
        return all(0 <= age < self._absent_after.total_seconds() for age in ages)

    async def _beat(self) -> None:
        clocks = _clocks()
        self._knows_absences = self._knows_absences and self._is_fresh()
        while not await self._add_beat():
            """Another replica's beat came first: this one follows it."""
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
        with contextlib.suppress(WrongSequence):  # already recorded
            await self._bus.publish(subject, message.SerializeToString(), expected_sequence=0)
            log.warning("no coordinator was present from %s to %s: that time does not count", gap.start, gap.end)

    async def _read_absences(self) -> tuple[Absence, ...]:
        """Reads all recorded absences from the stream's leader."""
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
    """Returns the period between a beat and the previous one; None for the first beat ever."""
    try:
        said = pb.Absence.FromString(beat.body)
        return Absence(from_timestamp(said.start_time), beat.time) if said.HasField("start_time") else None
    except (DecodeError, ValueError, OverflowError):
        log.warning("the beat of presence at %s can't be read: absences before it are unknown", beat.time)
        return None


def _clocks() -> tuple[float, float]:
    return (time.monotonic(), time.time())
