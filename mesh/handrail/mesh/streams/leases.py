"""Leases: the short exclusive right of one replica to work on something, kept in the JetStream KV store.

They only save double work. Safety comes from the expected sequence of each append and from the fold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.mesh.streams.lease_bucket import LeaseBucket
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

DEFAULT_TTL = timedelta(seconds=15)
"""A leader election of the broker takes 4 to 9 seconds; a shorter lease would not survive it."""


class Leases:
    """Acquires, renews and releases leases. `holder` names this replica for people who inspect the bucket."""

    def __init__(self, bucket: LeaseBucket, *, holder: str, ttl: timedelta = DEFAULT_TTL) -> None:
        self._bucket = bucket
        self._holder = holder.encode()
        self._ttl = ttl

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Holds a lease for the time of the block; raises FLOW_BUSY if another replica has it.

        If the broker gives it to nobody, the block runs without it: a lease only saves work.
        """
        try:
            revision = await self._bucket.acquire(key, self._holder, ttl=self._ttl)
        except WrongSequence as error:
            raise HandrailError(
                ErrorReason.ERROR_REASON_FLOW_BUSY, f"another replica holds {key}; retry shortly", key=key
            ) from error
        if revision is None:
            log.warning("lease %s: nobody holds it, but the broker refuses it; continuing without", key)
            yield
            return
        held = _Held(self._bucket, key, self._holder, revision, self._ttl)
        renewal = asyncio.create_task(held.keep(), name=f"lease {key}")
        try:
            yield
        finally:
            renewal.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await renewal
            await held.give_back()


class _Held:
    def __init__(self, bucket: LeaseBucket, key: str, holder: bytes, revision: int, ttl: timedelta) -> None:
        self._bucket = bucket
        self._key = key
        self._holder = holder
        self._revision = revision
        self._ttl = ttl

    async def keep(self) -> None:
        """Renews the lease at a third of its time to live, for as long as this runs."""
        while True:
            await asyncio.sleep(self._ttl.total_seconds() / 3)
            try:
                self._revision = await self._bucket.renew(self._key, self._holder, self._revision, ttl=self._ttl)
            except Exception as error:
                # Lost or late: the work continues, because the expected sequence of each append protects it.
                log.warning("lease %s could not be renewed: %s", self._key, error)

    async def give_back(self) -> None:
        """Releases the lease, so that the next holder need not wait for its expiry."""
        try:
            await self._bucket.release(self._key, self._revision)
        except Exception as error:
            # Raising here would hide the result of the work under the lease.
            log.info("lease %s was not released and will expire: %s", self._key, error)
