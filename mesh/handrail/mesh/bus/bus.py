"""The interface to the streams that the rest of Handrail uses. `NatsBus` implements it over NATS, tests in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT, Stored


class Bus(Protocol):
    """Stores messages in streams and reads them. tests/integration/test_bus_conformance.py specifies each call and runs
    against every implementation.
    """

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
        """Stores a message and returns its sequence.

        With `expected_sequence`, it stores the message only if that is the last sequence on `expected_filter` (default:
        on `subject`). Raises AlreadyStored, WrongSequence, StreamFull, TooLarge or BrokerPermission. Raises
        BrokerUnavailable after `timeout`; whether the message is stored is then unknown.
        """

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
        """As `publish`, without a future: `on_stored` is called once, from the event loop, with the sequence or the
        error.
        """

    async def direct_get(
        self,
        stream: str,
        *,
        multi_last: Sequence[str],
        from_seq: int = 0,
        up_to_seq: int | None = None,
        timeout: timedelta = READ_TIMEOUT,
    ) -> Page:
        """Returns the last message of each subject that matches one of the filters, in stream order.

        `from_seq` leaves out older messages, `up_to_seq` newer ones. Raises TooManySubjects beyond 1,024 subjects. On a
        replicated stream the answer may lag: compare `Page.up_to_sequence` with the sequence you expect.
        """

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """Returns up to `limit` matching messages, oldest first, from a sequence on.

        The broker scans the stream message by message. Use it for lists, never for a single flow.
        """

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """Returns the newest matching message, or None."""

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """Like `last`, but asks the stream's leader: never stale, and more expensive."""

    async def first_on_leader(
        self, stream: str, subject_filter: str, *, from_sequence: int, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """Returns the first matching message from a sequence on, or None. Asks the stream's leader."""

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """Returns the message at this sequence, or None."""

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Calls the JetStream API, possibly twice. Raises ApiError if the API refuses the request."""
