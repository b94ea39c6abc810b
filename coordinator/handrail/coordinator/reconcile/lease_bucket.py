"""The primitives of a lease on the key-value bucket `leases`: one key, one holder, gone after its time to live.

Raw publishes, because nats-py's key-value client makes a lease permanent when it renews it, and can't acquire one
whose expiry has left a marker. A lease's token is the sequence of its last write: it grows with every acquisition.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import WrongSequence
from handrail.mesh.streams import LEASES, LEASES_BUCKET

_MARKERS = frozenset({"Nats-Marker-Reason", "KV-Operation"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What a key holds: the holder's value, and the revision, which is the fencing token."""

    value: bytes
    revision: int


class LeaseBucket:
    """The bucket `leases`. Every call also raises what `Bus.publish` and `Bus.request_json` raise."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def acquire(self, key: str, holder: bytes, *, ttl: timedelta) -> int:
        """Take the lease and return its revision; WrongSequence while somebody else holds it.

        `ttl` is at least one second. `holder` must be this replica's own: finding it there means that an earlier try
        of this very call was stored and only its answer got lost.
        """
        try:
            return await self._write(key, holder, ttl, expected=0)
        except WrongSequence as refusal:
            last = await self._last(key)
            if last is None:
                raise  # it went away in between; the next try gets it
            entry, is_marker = last
            if not is_marker:
                if entry.value == holder:
                    return entry.revision
                raise refusal
        return await self._write(key, holder, ttl, expected=entry.revision)

    async def renew(self, key: str, holder: bytes, revision: int, *, ttl: timedelta) -> int:
        """Prolong the lease and return its new revision; WrongSequence where it is lost."""
        try:
            return await self._write(key, holder, ttl, expected=revision)
        except WrongSequence:
            last = await self._last(key)
            if last is not None and last[0].value == holder and last[0].revision > revision and not last[1]:
                return last[0].revision  # written; only the answer got lost
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
        last = await self._last(key)
        return None if last is None or last[1] else last[0]

    async def _write(self, key: str, holder: bytes, ttl: timedelta, *, expected: int) -> int:
        headers = {"Nats-TTL": f"{int(ttl / timedelta(milliseconds=1))}ms"}
        return await self._bus.publish(_subject(key), holder, expected_sequence=expected, headers=headers)

    async def _last(self, key: str) -> tuple[Entry, bool] | None:
        """The entry and whether it is a marker, from the leader."""
        message = await self._bus.last_on_leader(LEASES, _subject(key))
        if message is None:
            return None
        return Entry(message.body, message.sequence), not _MARKERS.isdisjoint(message.headers)


def _subject(key: str) -> str:
    return f"$KV.{LEASES_BUCKET}.{key}"
