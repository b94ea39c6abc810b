"""The primitives of a lease on the key-value bucket `leases`: one key, one holder, gone after its time to live.

Raw publishes, because nats-py's key-value client makes a lease permanent when it renews it, and can't acquire one
whose expiry has left a marker. A lease's token is the sequence of its last write: it grows with every acquisition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import WrongSequence
from handrail.mesh.streams import LEASES, LEASES_BUCKET

_TRIES = 3
"""The first finds a lease or a marker, the second what another replica just took, the third a broker that refuses."""

_MARKERS = frozenset({"Nats-Marker-Reason", "KV-Operation"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key holds: the holder's value, and the revision, which is the fencing token."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What the leader has under a key. A marker says that a lease was released, or ran out."""

    entry: Entry
    written: datetime
    is_marker: bool


class LeaseBucket:
    """The bucket `leases`. Every call also raises what `Bus.publish` and `Bus.request_json` raise."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def acquire(self, key: str, holder: bytes, *, ttl: timedelta) -> int | None:
        """Take the lease and return its revision; WrongSequence while somebody else holds it.

        None where nobody holds it and the broker refuses it again and again. A lease that was not renewed for twice its
        time to live is taken over: a server that is killed brings leases back that were released, and may keep them for
        minutes. `ttl` is at least one second, and the same for all replicas. `holder` must be this
        replica's own: finding it there means that an earlier try of this very call was stored and only its answer got
        lost.
        """
        expected = 0
        for _ in range(_TRIES):
            try:
                return await self._write(key, holder, ttl, expected=expected)
            except WrongSequence:
                found = await self._last(key)
                if found is not None and not found.is_marker:
                    if found.entry.value == holder:
                        return found.entry.revision
                    if datetime.now(UTC) - found.written < 2 * ttl:
                        raise
                expected = found.entry.revision if found is not None else 0
        return None

    async def renew(self, key: str, holder: bytes, revision: int, *, ttl: timedelta) -> int:
        """Prolong the lease and return its new revision; WrongSequence where it is lost."""
        try:
            return await self._write(key, holder, ttl, expected=revision)
        except WrongSequence:
            entry = await self.entry(key)
            if entry is not None and entry.value == holder and entry.revision > revision:
                return entry.revision  # written; only the answer got lost
            raise

    async def release(self, key: str, revision: int) -> None:
        """Give the lease back; one that is lost already stays as it is."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "1"}
        try:
            await self._bus.publish(_subject(key), b"", expected_sequence=revision, headers=headers)
        except WrongSequence:
            return

    async def entry(self, key: str) -> Entry | None:
        """Who holds the lease now, or None."""
        found = await self._last(key)
        return None if found is None or found.is_marker else found.entry

    async def _write(self, key: str, holder: bytes, ttl: timedelta, *, expected: int) -> int:
        headers = {"Nats-TTL": f"{int(ttl / timedelta(milliseconds=1))}ms"}
        return await self._bus.publish(_subject(key), holder, expected_sequence=expected, headers=headers)

    async def _last(self, key: str) -> _Found | None:
        message = await self._bus.last_on_leader(LEASES, _subject(key))
        if message is None:
            return None
        is_marker = not _MARKERS.isdisjoint(message.headers)
        return _Found(Entry(message.body, message.sequence), message.time, is_marker)


def _subject(key: str) -> str:
    return f"$KV.{LEASES_BUCKET}.{key}"
