"""Flows in the FLOW stream: reads, folds and appends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import NamedTuple

from handrail.mesh.bus import Bus, RawMessage, TooManySubjects, fresh_read
from handrail.mesh.bus.direct_get import READ_TIMEOUT
from handrail.mesh.errors import AlreadyStored, BrokerUnavailable, HandrailError, WrongSequence
from handrail.mesh.flow import Flow
from handrail.mesh.fold import Versions, advance, fold, migration_of
from handrail.mesh.fold.outcomes import why_not_first
from handrail.mesh.streams import outcomes, purged
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.history import History, decoded, has_beginning, with_malformed
from handrail.mesh.streams.stream_walk import listed_subjects, oldest_first
from handrail.mesh.streams.streams import FLOW
from handrail.mesh.template import Template
from handrail.mesh.waiting import FIRST_WAIT, Patience
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.mesh.wire.subjects import Kind, flow_filter, is_text
from handrail.v1.error_reason_pb2 import ErrorReason

_SUBJECTS_PER_READ = 512


class Appended(NamedTuple):
    """Where a message is stored. `is_new` tells that the call stored it, so right after the flow it was based on."""

    sequence: int
    is_new: bool


class FlowStore:
    """Reads flows and appends to them. A replica that lags may answer a read: pass the known sequence as `at_least`."""

    def __init__(self, bus: Bus, catalog: Catalog) -> None:
        self._bus = bus
        self.catalog = catalog

    def known_template(self, name: str, version: int) -> Template | None:
        """A template that is already known, or None; never reads the stream."""
        return self.catalog.get(name, version)

    async def read(
        self,
        flow_type: str,
        flow_id: str,
        *,
        after: int = 0,
        at_least: int = 0,
        up_to: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> History:
        """The messages of a flow in stream order, possibly none.

        Reads again until the answer covers everything up to sequence `at_least`. `after` skips messages up to that
        sequence, `up_to` skips newer ones. Raises BrokerUnavailable after `timeout`.
        """
        messages = await self.messages(flow_type, flow_id, after=after, at_least=at_least, timeout=timeout)
        newest = up_to if up_to is not None else sys.maxsize
        return decoded([message for message in messages if after < message.sequence <= newest])

    async def messages(
        self,
        flow_type: str,
        flow_id: str,
        *,
        after: int = 0,
        at_least: int = 0,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Sequence[RawMessage]:
        """As `read`, as they are stored; some up to `after` may be among them."""
        return await self._read_raw(flow_filter(flow_type, flow_id), after, at_least, timeout)

    async def fold(self, flow_type: str, flow_id: str, history: Sequence[Recorded]) -> Flow:
        """Folds the messages of a flow with the template that its first event pins.

        Unreadable messages of a `History` are void. They count for `last_sequence`, so that decisions can be appended
        after them. Raises FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, and FLOW_ARCHIVED if the flow was purged, and these are
        messages that came late.
        """
        if not history:
            raise no_flow(flow_type, flow_id)
        if not has_beginning(history) and await purged.may_be_purged(self._bus, flow_type, flow_id):
            raise purged.archived(flow_type, flow_id)
        template = await self.pinned_template(flow_type, history)
        versions = await self.versions_in(flow_type, history)
        return with_malformed(fold(template, history, versions), history)

    async def fold_in_two(
        self, flow_type: str, flow_id: str, history: Sequence[Recorded], *, since: int
    ) -> tuple[Flow | None, Flow]:
        """The flow before sequence `since` (None if it had not begun), and the whole flow like `fold`."""
        earlier = [recorded for recorded in history if recorded.sequence < since]
        if not earlier:
            return None, await self.fold(flow_type, flow_id, history)
        template = await self.pinned_template(flow_type, history)
        versions = await self.versions_in(flow_type, history)
        before = fold(template, earlier, versions)
        return before, with_malformed(advance(before, history[len(earlier) :], versions), history)

    async def versions_in(self, flow_type: str, history: Sequence[Recorded]) -> Versions:
        """The versions that these messages migrate their flow to. Raises TEMPLATE_NOT_FOUND."""
        moved = [migrated for recorded in history if (migrated := migration_of(recorded)) is not None]
        return {each.to_version: await self.catalog.template(flow_type, each.to_version) for each in moved}

    async def pinned_template(self, flow_type: str, history: Sequence[Recorded]) -> Template:
        """The version that a flow is pinned to: the one in its first event, if an agent published it that may start
        the flow. Raises TEMPLATE_NOT_FOUND.

        Without such an event, the version that the oldest message of the flow claims.
        """
        pinning = await self._pinning(flow_type, history)
        return pinning or await self.catalog.template(flow_type, history[0].event.template_version)

    async def _pinning(self, flow_type: str, history: Sequence[Recorded]) -> Template | None:
        """The version in the first event of a flow; None without such an event."""
        for recorded in history:
            if recorded.kind is not Kind.EVENT or recorded.event.step:
                continue
            version = recorded.event.template_version
            template = self.catalog.get(flow_type, version)
            if template is None:
                await self.catalog.refresh()
                template = self.catalog.get(flow_type, version)
            if template is not None and why_not_first(template, recorded) is None:
                return template
        return None

    async def load(self, flow_type: str, flow_id: str, *, at_least: int = 0, up_to: int | None = None) -> Flow:
        """Reads and folds a flow. Raises FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, and FLOW_ARCHIVED if it was purged."""
        history = await self.read(flow_type, flow_id, at_least=at_least, up_to=up_to)
        if at_least and not history.last_sequence:  # the flow had a message there
            raise purged.archived(flow_type, flow_id)
        return await self.fold(flow_type, flow_id, history)

    async def load_newest(self, flow_type: str, flow_id: str) -> Flow:
        """Reads and folds a flow as new as the stream's leader has it.

        Required before writes and refusals. It costs no extra time: the leader and a replica are asked in parallel.
        Raises FLOW_NOT_FOUND, TEMPLATE_NOT_FOUND, and FLOW_ARCHIVED if it was purged.
        """
        newest, history = await asyncio.gather(self.newest(flow_type, flow_id), self.read(flow_type, flow_id))
        if newest > history.last_sequence:
            history = await self.read(flow_type, flow_id, at_least=newest)
        if not history.last_sequence and await purged.recorded(self._bus, flow_type, flow_id) is not None:
            raise purged.archived(flow_type, flow_id)
        return await self.fold(flow_type, flow_id, history)

    async def newest(self, flow_type: str, flow_id: str) -> int:
        """The sequence of a flow's newest message on the stream's leader; 0 if it has none."""
        return await fresh_read.newest(self._bus, FLOW, flow_filter(flow_type, flow_id))

    async def catch_up(self, flow: Flow, *, at_least: int) -> Flow:
        """The flow with the messages since it was folded, covering everything up to sequence `at_least`.

        Reading on is safe: a replica answers with everything up to its own position, so messages missing from a read
        are newer than all it returned. The last known message is read again: without it, the flow is not what it was,
        and is read whole. So is a flow that begins: its first event may pin it to another version. And so is a flow
        that nothing came to for minutes: a purge that was cut off may have left its last messages. Raises FLOW_ARCHIVED
        if it was purged.
        """
        if purged.may_have_left(flow.last_time):
            return await self.load(flow.flow_type, flow.flow_id, at_least=max(at_least, flow.last_sequence))
        flow_type, flow_id, known = flow.flow_type, flow.flow_id, flow.last_sequence
        at_least = max(at_least, known)
        messages = await self._read_raw(flow_filter(flow_type, flow_id), known - 1, at_least, READ_TIMEOUT)
        is_unlike = all(message.sequence != known for message in messages)
        if is_unlike or (flow.first is None and await self._begins(flow, by=messages[-1])):
            return await self.load(flow_type, flow_id, at_least=at_least)
        news = decoded([message for message in messages if message.sequence > known])
        versions = await self.versions_in(flow.flow_type, news)
        return with_malformed(advance(flow, news, versions), news)

    async def append(self, flow: Flow, entry: Entry) -> Appended:
        """Appends a message decided on `flow`, unless the flow has moved on since.

        An existing message with the same id and data counts as appended (the answer to an earlier try got lost, or
        another replica decided the same). Raises WrongSequence if the flow has moved on, with the sequence that the
        next read must cover, FLOW_ARCHIVED if nothing of it is left, and the errors of `Bus.publish`.
        """
        try:
            sequence = await self._bus.publish(
                entry.address.subject,
                entry.body,
                expected_sequence=flow.last_sequence,
                expected_filter=flow_filter(flow.flow_type, flow.flow_id),
            )
            return Appended(sequence, is_new=True)
        except (AlreadyStored, WrongSequence) as refusal:
            own = await outcomes.on_leader(self._bus, entry.address.subject)
            if own is not None and own.event.data == entry.event.data:
                return Appended(own.sequence, is_new=False)
            named = refusal.last_sequence if isinstance(refusal, WrongSequence) else None
            last_sequence = named or await self.newest(flow.flow_type, flow.flow_id)
            if not last_sequence and flow.last_sequence:
                raise purged.archived(flow.flow_type, flow.flow_id) from refusal
            raise WrongSequence(entry.address.subject, last_sequence) from refusal

    async def decided(
        self, flows: Collection[tuple[str, str]], *, behind: Recorded, timeout: timedelta = READ_TIMEOUT
    ) -> frozenset[tuple[str, str]]:
        """The flows among these (type and id) with a recorded decision, as of the stored message `behind` or later.

        A filter without a match costs the broker about a microsecond, so this is far cheaper than reading the flows.
        Raises TooManySubjects beyond 1,024 decisions, and BrokerUnavailable after `timeout`.
        """
        found: set[tuple[str, str]] = set()
        asked = list(flows)
        for start in range(0, len(asked), _SUBJECTS_PER_READ):
            filters = [
                f"flow.{flow_type}.{flow_id}.{Kind.DECISION}.>"
                for flow_type, flow_id in asked[start:][:_SUBJECTS_PER_READ]
            ]
            # Visible on all replicas that have this much of the stream.
            page = await fresh_read.read(
                self._bus, FLOW, [*filters, behind.address.subject], at_least=behind.sequence, timeout=timeout
            )
            tokens = (message.subject.split(".", 4) for message in page.messages)
            found |= {(each[1], each[2]) for each in tokens if each[3] == Kind.DECISION}
        return frozenset(found)

    async def _begins(self, flow: Flow, *, by: RawMessage) -> bool:
        """Tells whether a flow that had not begun does so by this message of it, or may do so."""
        possible = f"flow.{flow.flow_type}.{flow.flow_id}.{Kind.EVENT}.*.{ids.start_id(flow.flow_id)}.>"
        try:
            # With this message, the answer shows how far the replica is.
            page = await fresh_read.read(self._bus, FLOW, [possible, by.subject], at_least=by.sequence)
        except TooManySubjects:
            return True
        return await self._pinning(flow.flow_type, decoded(page.messages)) is not None

    async def _read_raw(
        self, subject_filter: str, after: int, at_least: int, timeout: timedelta
    ) -> Sequence[RawMessage]:
        try:
            page = await fresh_read.read(
                self._bus, FLOW, [subject_filter], at_least=at_least, after=after, timeout=timeout
            )
        except TooManySubjects:
            return await self._read_in_parts(subject_filter, timeout)
        return page.messages

    async def _read_in_parts(self, subject_filter: str, timeout: timedelta) -> Sequence[RawMessage]:
        """Reads a flow of more than SUBJECT_LIMIT messages: the leader lists its subjects, to be read in batches.

        Subjects are write-once, so listed messages do not change meanwhile. Splitting by kind would only move the
        limit: one kind alone can exceed it. A subject that is not UTF-8 is listed under a changed name, which can't be
        read: then the broker walks the stream.
        """
        subjects = await listed_subjects(self._bus, FLOW, subject_filter, timeout=timeout)
        messages: list[RawMessage] = []
        if not all(map(is_text, subjects)):
            return [message async for message in oldest_first(self._bus, FLOW, subject_filter)]
        for start in range(0, len(subjects), _SUBJECTS_PER_READ):
            some = subjects[start : start + _SUBJECTS_PER_READ]
            messages += await self._read_all(some, timeout)
        return sorted(messages, key=lambda message: message.sequence)

    async def _read_all(self, subjects: Sequence[str], timeout: timedelta) -> Sequence[RawMessage]:
        """The messages on these very subjects, from a replica that has all of them."""
        looks = Patience(timeout, longest=FIRST_WAIT)
        while True:
            page = await fresh_read.read(self._bus, FLOW, subjects, at_least=0, timeout=timeout)
            if len(page.messages) == len(subjects):
                return page.messages
            if not await looks.wait():
                raise BrokerUnavailable(
                    f"{subjects[0]}: no replica has all of the flow's messages; the last one had {page.up_to_sequence}"
                )


def no_flow(flow_type: str, flow_id: str) -> HandrailError:
    """Returns the error for a flow that does not exist under this type."""
    return HandrailError(
        ErrorReason.ERROR_REASON_FLOW_NOT_FOUND, f"there is no {flow_type} flow {flow_id}", flow_id=flow_id
    )
