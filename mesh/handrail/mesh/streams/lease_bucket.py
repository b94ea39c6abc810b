"""The primitives of a lease on the key-value bucket `leases`: one key, one holder, removed after its time to live.

It publishes directly, because nats-py's key-value client makes a lease permanent when it renews it, and can't acquire a
lease whose expiry left a marker. A lease's fencing token is the sequence of its last write, which grows with every
acquisition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import WrongSequence
from handrail.mesh.streams.streams import LEASES, LEASES_BUCKET

_TRIES = 3
"""The first try finds a lease or a marker, the second a lease that another replica just took, the third a broker that
refuses."""

_MARKERS = frozenset({"Nats-Marker-Reason", "KV-Operation"})


@dataclass(frozen=True, slots=True)
class Entry:
    """The value of a key: the holder, and the revision, which is the fencing token."""

    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class _Found:
    """What the leader stores under a key. A marker means that a lease was released or expired."""

    entry: Entry
    written: datetime
    is_marker: bool


class LeaseBucket:
    """The bucket `leases`. Every call also raises what `Bus.publish` and `Bus.request_json` raise."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def acquire(self, key: str, holder: bytes, *, ttl: timedelta) -> int | None:
        """Acquires the lease and returns its revision; raises WrongSequence while another replica holds it.

        Returns None if nobody holds it and the broker keeps refusing it. A lease that was not renewed for twice its
        time to live is taken over: a server that is killed brings back leases that were released, and may keep them for
        minutes. `ttl` is at least one second, and the same for all replicas. `holder` must be unique to this replica:
        finding it means that an earlier try of this call was stored and only its answer got lost.
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
        """Renews the lease and returns its new revision; raises WrongSequence if the lease is lost."""
        try:
            return await self._write(key, holder, ttl, expected=revision)
        except WrongSequence:
            entry = await self.entry(key)
            if entry is not None and entry.value == holder and entry.revision > revision:
                return entry.revision  # stored; only the answer got lost
            raise

    async def release(self, key: str, revision: int) -> None:
        """Releases the lease; does nothing if it is lost already."""
        headers = {"KV-Operation": "PURGE", "Nats-Rollup": "sub", "Nats-TTL": "1"}
        try:
            await self._bus.publish(_subject(key), b"", expected_sequence=revision, headers=headers)
        except WrongSequence:
            return

    async def entry(self, key: str) -> Entry | None:
        """Returns the current holder of the lease, or None."""
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
