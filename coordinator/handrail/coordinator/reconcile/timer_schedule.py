"""TimerSchedule: timers as scheduled messages in the broker, where they survive any crash of a coordinator."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from handrail.mesh import streams
from handrail.mesh.bus import Bus, TooManySubjects
from handrail.mesh.wire.subjects import due_subject, timer_filter, timer_subject

_AT_ONCE = 32

_LONGEST_SEQUENCE = 20
"""The digits of a sequence, which has 64 bits."""


class TimerSchedule:
    """Arms and clears the timers of flows. Both are idempotent."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def change(
        self,
        flow_type: str,
        flow_id: str,
        *,
        before: Mapping[str, datetime],
        after: Mapping[str, datetime],
        last_sequence: int,
    ) -> None:
        """Arms the timers in `after` that are not in `before`, then clears those that are only in `before`.

        `last_sequence` is the flow's: the handler of a timer reads the flow at least up to it.
        """
        new = [name for name in after if name not in before]
        gone = [name for name in before if name not in after]
        for start in range(0, len(new), _AT_ONCE):
            names = new[start : start + _AT_ONCE]
            await asyncio.gather(*(self._arm(flow_type, flow_id, name, after[name], last_sequence) for name in names))
        for name in gone:
            await self._clear(flow_type, flow_id, name)

    async def standing(
        self, flow_type: str, flow_id: str, timers: Mapping[str, datetime], *, at_least: int
    ) -> Mapping[str, datetime]:
        """Returns those of these timers that TIMER holds; none if no server answers that has TIMER up to `at_least`, or
        if the flow has more timers than one read returns.
        """
        if not timers:
            return {}
        try:
            page = await self._bus.direct_get(streams.TIMER, multi_last=[timer_filter(flow_type, flow_id)])
        except TooManySubjects:
            return {}
        if page.up_to_sequence < at_least:
            return {}
        held = {message.subject for message in page.messages}
        return {name: due for name, due in timers.items() if timer_subject(flow_type, flow_id, name) in held}

    async def _arm(self, flow_type: str, flow_id: str, name: str, due: datetime, last_sequence: int) -> None:
        await self._bus.publish(
            timer_subject(flow_type, flow_id, name),
            str(last_sequence).encode(),
            headers={
                "Nats-Schedule": f"@at {_rounded_up(due)}",
                "Nats-Schedule-Target": due_subject(flow_type, flow_id, name),
            },
        )

    async def _clear(self, flow_type: str, flow_id: str, name: str) -> None:
        await self._bus.request_json(
            f"$JS.API.STREAM.PURGE.{streams.TIMER}", {"filter": timer_subject(flow_type, flow_id, name)}
        )


def known_sequence(body: bytes) -> int:
    """Returns the sequence that a timer's flow had reached when it was armed; 0 if the timer does not say."""
    return int(body) if body.isdigit() and len(body) < _LONGEST_SEQUENCE else 0


def _rounded_up(due: datetime) -> str:
    """Formats RFC 3339 with milliseconds, rounded up: a timer that fires early would find nothing to do."""
    up = due + timedelta(microseconds=-due.microsecond % 1000)
    return up.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
