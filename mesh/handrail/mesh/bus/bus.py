"""The bus: all that the rest of Handrail does with the streams. `NatsBus` is the broker, the tests' is in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Protocol

from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.bus.direct_get import READ_TIMEOUT, Page, RawMessage
from handrail.mesh.bus.publish import PUBLISH_TIMEOUT


class Bus(Protocol):
    """Stores messages in streams and reads them. tests/integration/test_bus_conformance.py says how each call behaves,
    and runs on every bus there is.
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
        """Store a message and return its sequence.

        With `expected_sequence`, only if that is the last sequence on `expected_filter` (where missing: on `subject`).
        Raises AlreadyStored, WrongSequence, StreamFull, TooLarge, BrokerPermission, and BrokerUnavailable after
        `timeout`: then it may be stored or not.
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
        """The last message of each subject that matches one of the filters, in stream order.

        `from_seq` leaves out what is older, `up_to_seq` what is newer. Raises TooManySubjects beyond 1,024. On a
        replicated stream the answer may lag: compare `up_to_sequence` with what you know.
        """

    async def read_forward(
        self, stream: str, subject_filter: str, *, from_sequence: int, limit: int, timeout: timedelta = READ_TIMEOUT
    ) -> Page:
        """Up to `limit` messages that match, oldest first, from a sequence on.

        The broker walks the stream message by message: for lists, never for one flow.
        """

    async def last(self, stream: str, subject_filter: str, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The newest message that matches, or None."""

    async def last_on_leader(
        self, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
    ) -> RawMessage | None:
        """The same as the stream's leader has it: never stale, and dearer."""

    async def by_sequence(self, stream: str, sequence: int, *, timeout: timedelta = READ_TIMEOUT) -> RawMessage | None:
        """The message at this very sequence, or None."""

    async def request_json(
        self, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        """Ask the JetStream API; ApiError for what it refuses. It may be asked twice."""
