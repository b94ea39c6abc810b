"""The broker in memory: streams with the rules that Handrail relies on, and a clock that only moves when told to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from handrail.mesh import streams
from handrail.mesh.bus import Bus, Delivery, Page, RawMessage
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT
from handrail.mesh.errors import AlreadyStored, WrongSequence
from handrail.mesh.permissions import matches

_STREAM_OF = {
    "flow": streams.FLOW,
    "template": streams.TEMPLATE,
    "quarantine": streams.QUARANTINE,
    "key": streams.KEY,
    "worker": streams.WORKER,
}
_SCHEDULE = "Nats-Schedule"
_TARGET = "Nats-Schedule-Target"
_PURGE_TIMERS = f"$JS.API.STREAM.PURGE.{streams.TIMER}"


class MemoryBus(Bus):
    """A `Bus` without a broker: the catalog, the store and the coordinator's parts run on it as they are.

    Subjects are write-once, expectations hold, timers fire when the clock gets there. What needs a connection
    (consuming, subscribing) is not here: the World hands messages out itself.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.messages: dict[str, list[RawMessage]] = defaultdict(list)
        self.timers: dict[str, tuple[datetime, str]] = {}
        self._sequences: dict[str, int] = defaultdict(int)
        self._subjects: dict[str, set[str]] = defaultdict(set)
        self._of_flow: dict[str, list[RawMessage]] = defaultdict(list)

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> int:
        """Store a message at the present time; refusals as the broker's."""
        headers = headers or {}
        if subject.startswith("timer."):
            due = datetime.fromisoformat(headers[_SCHEDULE].removeprefix("@at "))
            self.timers[subject] = (due, headers[_TARGET])
            return 0
        stream = _STREAM_OF[subject.partition(".")[0]]
        if expected_sequence is not None:
            matching = self.matching(stream, expected_filter or subject)
            last = matching[-1].sequence if matching else 0
            if last != expected_sequence:
                raise WrongSequence(subject, last)
        if subject in self._subjects[stream]:
            raise AlreadyStored(subject)
        self._subjects[stream].add(subject)
        self._sequences[stream] += 1
        message = RawMessage(subject, body, self._sequences[stream], self.now)
        self.messages[stream].append(message)
        if stream == streams.FLOW and subject.count(".") > 2:
            self._of_flow[subject.split(".", 3)[2]].append(message)
        return message.sequence

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        """The messages that match, in stream order."""
        found = {m.sequence: m for pattern in multi_last for m in self.matching(stream, pattern)}
        newest = self._sequences[stream] if up_to_seq is None else up_to_seq
        wanted = [found[sequence] for sequence in sorted(found) if from_seq <= sequence <= newest]
        return Page(tuple(wanted), up_to_sequence=self._sequences[stream])

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """A page of the messages that match, oldest first."""
        matching = [m for m in self.matching(stream, subject_filter) if m.sequence >= from_sequence]
        page = tuple(matching[:limit])
        return Page(page, up_to_sequence=self._sequences[stream], pending=len(matching) - len(page))

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The newest message that matches."""
        matching = self.matching(stream, subject_filter)
        return matching[-1] if matching else None

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """The newest message that matches."""
        matching = self.matching(stream, subject_filter)
        return matching[-1] if matching else None

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The message at this sequence."""
        return next((m for m in self.messages[stream] if m.sequence == sequence), None)

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Clears timers; the one request to the JetStream API that the coordinator's core makes."""
        if api_subject != _PURGE_TIMERS:
            raise NotImplementedError(f"there is no {api_subject} in memory")
        gone = [subject for subject in self.timers if matches(str((payload or {})["filter"]), subject)]
        for subject in gone:
            del self.timers[subject]
        return {"purged": len(gone)}

    def next_timer(self) -> datetime | None:
        """When the next timer is due."""
        return min((due for due, _ in self.timers.values()), default=None)

    def fire(self) -> list[str]:
        """Take the timers that are due, and return the `due` subjects they arrive on."""
        ripe = sorted(subject for subject, (due, _) in self.timers.items() if due <= self.now)
        return [self.timers.pop(subject)[1] for subject in ripe]

    def matching(self, stream: str, pattern: str) -> list[RawMessage]:
        """The messages of a stream whose subjects match, in stream order."""
        candidates = self.messages[stream]
        tokens = pattern.split(".", 3)
        if stream == streams.FLOW and len(tokens) > 3 and tokens[2] != "*":
            candidates = self._of_flow.get(tokens[2], [])
        return [message for message in candidates if matches(pattern, message.subject)]


class MemoryDelivery(Delivery):
    """A message handed out in memory. What becomes of it is told to `on_settled`: None for done, or the delay."""

    __slots__ = ("_lost", "_on_settled", "_time")

    def __init__(self, message: RawMessage, delivered: int, on_settled: Callable[[timedelta | None], None]) -> None:
        self.subject = message.subject
        self.body = message.body
        self.sequence = message.sequence
        self.delivered = delivered
        self._time = message.time
        self._settled = False
        self._lost = False
        self._on_settled = on_settled

    @property
    def time(self) -> datetime:
        """When it was stored."""
        return self._time

    @property
    def pending(self) -> int:
        """Nothing waits behind it."""
        return 0

    @property
    def settled(self) -> bool:
        """Whether it was acked or handed back."""
        return self._settled

    def ack(self) -> None:
        """Done."""
        self._settle_as(None)

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: again, after `delay`."""
        self._settle_as(delay or timedelta())

    def term(self, reason: str) -> None:
        """Never to be done."""
        self._settle_as(None)

    def in_progress(self) -> None:
        """Time stands still while a handler runs."""

    def lose_answer(self) -> None:
        """Whatever is answered does not arrive."""
        self._lost = True

    def _settle_as(self, delay: timedelta | None) -> None:
        if not self._settled and not self._lost:
            self._settled = True
            self._on_settled(delay)
