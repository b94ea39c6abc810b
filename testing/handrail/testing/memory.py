"""The broker in memory: streams with the rules that Handrail relies on, and a clock that the test moves."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from handrail.mesh import streams
from handrail.mesh.bus import Bus, Delivery, Page, RawMessage, TooManySubjects
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT, SUBJECT_LIMIT
from handrail.mesh.bus.expectation import expecting
from handrail.mesh.bus.protocol import header_block, is_subject, size
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT, Stored, why_not_sent
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.permissions import matches
from handrail.mesh.streams.streams import quarantined_agent
from handrail.mesh.wire.subjects import COORDINATOR, NO_AGENT, parse_quarantine

_WRITE_ONCE = {
    "flow": streams.FLOW,
    "template": streams.TEMPLATE,
    "key": streams.KEY,
}
_NEWEST_COUNTS = {"timer": streams.TIMER, "worker": streams.WORKER}
_STREAM_OF = _WRITE_ONCE | _NEWEST_COUNTS
"""Maps the first token of a subject to its stream. Write-once subjects take one message; the others keep the newest.
Subjects of quarantines keep all their messages."""

_MAX_PAYLOAD = 1 << 20
"""The largest message in bytes that a nats-server accepts by default."""

_SCHEDULE = "Nats-Schedule"
_TARGET = "Nats-Schedule-Target"
_INFO = "$JS.API.STREAM.INFO."
_NAMES = "$JS.API.STREAM.NAMES"
_PURGE = "$JS.API.STREAM.PURGE."


class MemoryBus(Bus):
    """A `Bus` without a broker. The catalog, the store and the parts of the coordinator run on it unchanged.

    It is never full and denies no permission. Timers fire when the clock reaches them. It has no consumers and no
    subscriptions: the World delivers messages itself.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.messages: dict[str, list[RawMessage]] = defaultdict(list)
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
        """Stores a message at the present time. Refuses messages as the broker does."""
        return self._publish(subject, body, expected_sequence, expected_filter, headers)

    def publish_nowait(
        self,
        subject: str,
        body: bytes,
        on_stored: Stored,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: timedelta = PUBLISH_TIMEOUT,
    ) -> None:
        """Stores a message at the present time, and tells how it went a little later."""
        outcome: int | HandrailError
        try:
            outcome = self._publish(subject, body, expected_sequence, expected_filter, headers)
        except HandrailError as error:
            outcome = error
        asyncio.get_running_loop().call_soon(on_stored, outcome)

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        """Returns the matching messages in stream order."""
        newest = self._sequences[stream] if up_to_seq is None else up_to_seq
        found = {m.sequence: m for pattern in multi_last for m in self.matching(stream, pattern)}
        known = [sequence for sequence in sorted(found) if sequence <= newest]
        if len(known) > SUBJECT_LIMIT:
            raise TooManySubjects(stream, multi_last)
        wanted = tuple(found[sequence] for sequence in known if sequence >= from_seq)
        return Page(wanted, up_to_sequence=newest if known else 0)

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """Returns a page of the matching messages, oldest first."""
        matching = [m for m in self.matching(stream, subject_filter) if m.sequence >= from_sequence]
        return Page(tuple(matching[:limit]), pending=len(matching[limit:]))

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """Returns the newest matching message."""
        matching = self.matching(stream, subject_filter)
        return matching[-1] if matching else None

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """Returns the newest matching message."""
        matching = self.matching(stream, subject_filter)
        return matching[-1] if matching else None

    async def first_on_leader(
        self, stream: str, subject_filter: str, *, from_sequence: int, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """Returns the first matching message from a sequence on."""
        return next((m for m in self.matching(stream, subject_filter) if m.sequence >= from_sequence), None)

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The message at this sequence."""
        return next((m for m in self.messages[stream] if m.sequence == sequence), None)

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Purges by subject, lists streams and a stream's subjects: the JetStream API calls that the core uses."""
        if api_subject.startswith(_PURGE):
            stream = api_subject.removeprefix(_PURGE)
            gone = self.matching(stream, str((payload or {})["filter"]))
            for message in gone:
                self._remove(stream, message.subject)
            return {"purged": len(gone)}
        if api_subject == _NAMES:
            subject_filter = str((payload or {})["subject"])
            named = [name for name in self.messages if self.matching(name, subject_filter)]
            return {"streams": named, "total": len(named)}
        if api_subject.startswith(_INFO):
            return self._info(api_subject.removeprefix(_INFO), payload or {})
        raise NotImplementedError(f"MemoryBus does not implement {api_subject}")

    @property
    def quarantined(self) -> list[RawMessage]:
        """The messages of all quarantines, oldest first."""
        kept = [m for name, stored in self.messages.items() if quarantined_agent(name) is not None for m in stored]
        return sorted(kept, key=lambda message: message.time)

    @property
    def timers(self) -> dict[str, tuple[datetime, str]]:
        """Maps the subject of each armed timer to its due time and the `due` subject it arrives on."""
        armed = {message.subject: message.headers for message in self.messages[streams.TIMER]}
        return {
            subject: (datetime.fromisoformat(headers[_SCHEDULE].removeprefix("@at ")), headers[_TARGET])
            for subject, headers in armed.items()
        }

    def next_timer(self) -> datetime | None:
        """When the next timer is due."""
        return min((due for due, _ in self.timers.values()), default=None)

    def fire(self) -> list[str]:
        """Removes the timers that are due and returns the `due` subjects they arrive on."""
        timers = self.timers
        ripe = sorted(subject for subject, (due, _) in timers.items() if due <= self.now)
        for subject in ripe:
            self._remove(streams.TIMER, subject)
        return [timers[subject][1] for subject in ripe]

    def matching(self, stream: str, pattern: str) -> list[RawMessage]:
        """The messages of a stream with a matching subject, in stream order."""
        candidates = self.messages[stream]
        tokens = pattern.split(".", 3)
        if stream == streams.FLOW and len(tokens) > 3 and tokens[2] not in ("*", ">"):
            candidates = self._of_flow.get(tokens[2], [])
        return [message for message in candidates if matches(pattern, message.subject)]

    def _publish(
        self,
        subject: str,
        body: bytes,
        expected_sequence: int | None,
        expected_filter: str | None,
        headers: Mapping[str, str] | None,
    ) -> int:
        refusal = why_not_sent(subject, size(body, headers), _MAX_PAYLOAD)
        if refusal is not None:
            raise refusal
        stream = _quarantine_of(subject) or _STREAM_OF.get(subject.partition(".")[0])
        if stream is None or not is_subject(subject):
            raise BrokerUnavailable(f"can't publish on {subject}: no stream has this subject")
        if expected_sequence is not None:
            matching = self.matching(stream, expected_filter or subject)
            last = matching[-1].sequence if matching else 0
            if last != expected_sequence:
                raise WrongSequence(subject, last)
        if subject in self._subjects[stream]:
            if stream in _WRITE_ONCE.values():
                raise AlreadyStored(subject)
            if stream in _NEWEST_COUNTS.values():
                self._remove(stream, subject)
        if expected_sequence is not None:
            headers = expecting(headers, expected_sequence, expected_filter)
        return self._store(stream, subject, body, headers)

    def _store(self, stream: str, subject: str, body: bytes, headers: Mapping[str, str] | None) -> int:
        self._subjects[stream].add(subject)
        self._sequences[stream] += 1
        message = RawMessage(subject, body, self._sequences[stream], self.now, header_block(headers))
        self.messages[stream].append(message)
        if stream == streams.FLOW and subject.count(".") > 2:
            self._of_flow[subject.split(".", 3)[2]].append(message)
        return message.sequence

    def _remove(self, stream: str, subject: str) -> None:
        self._subjects[stream].discard(subject)
        self.messages[stream] = [message for message in self.messages[stream] if message.subject != subject]
        if stream == streams.FLOW and subject.count(".") > 2:
            flow_id = subject.split(".", 3)[2]
            self._of_flow[flow_id] = [message for message in self._of_flow[flow_id] if message.subject != subject]

    def _info(self, stream: str, query: Mapping[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {"messages": len(self.messages[stream]), "last_seq": self._sequences[stream]}
        if "subjects_filter" not in query:
            return {"state": state}
        subjects = [message.subject for message in self.matching(stream, str(query["subjects_filter"]))]
        listed = dict.fromkeys(subjects[int(query.get("offset", 0)) :], 1)
        return {"state": state | {"subjects": listed}, "total": len(subjects)}


def _quarantine_of(subject: str) -> str | None:
    """The quarantine that takes a subject, or None."""
    if not matches("quarantine.*.*.*.*.*", subject):
        return None
    kept = parse_quarantine(subject)
    agent = kept.about if kept.reporter == COORDINATOR else kept.reporter
    return streams.quarantine_stream("" if agent == NO_AGENT else agent)


class MemoryDelivery(Delivery):
    """A message delivered in memory. `on_settled` is called with None after an ack, or with the delay after a nak."""

    __slots__ = ("_lost", "_on_settled", "_time")

    def __init__(self, message: RawMessage, delivered: int, on_settled: Callable[[timedelta | None], None]) -> None:
        self.subject = message.subject
        self.body = message.body
        self.block = message.block
        self.sequence = message.sequence
        self.delivered = delivered
        self._time = message.time
        self._settled = False
        self._lost = False
        self._on_settled = on_settled

    @property
    def time(self) -> datetime:
        """When the message was stored."""
        return self._time

    @property
    def pending(self) -> int:
        """How many messages wait behind it: always 0."""
        return 0

    @property
    def settled(self) -> bool:
        """Whether the message was acked or handed back."""
        return self._settled

    def make_room(self) -> None:
        """Does nothing: no pull waits."""

    def ack(self) -> None:
        """Acknowledges the message."""
        self._settle_as(None)

    def nak(self, delay: timedelta | None = None) -> None:
        """Hands the message back for redelivery after `delay`."""
        self._settle_as(delay or timedelta())

    def term(self, reason: str) -> None:
        """Gives the message up: it is not redelivered."""
        self._settle_as(None)

    def in_progress(self) -> None:
        """Does nothing: time stands still while a handler runs."""

    def lose_answer(self) -> None:
        """Drops the coming answer, as if it never reached the broker."""
        self._lost = True

    def _settle_as(self, delay: timedelta | None) -> None:
        if not self._settled and not self._lost:
            self._settled = True
            self._on_settled(delay)
