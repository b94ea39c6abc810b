"""Leases: the short exclusive right of one replica, kept in the JetStream KV store.

They save double work. Safety comes from the expectation on each append and from the fold.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from handrail.coordinator.reconcile.lease_bucket import LeaseBucket
from handrail.mesh.errors import HandrailError, WrongSequence
from handrail.v1.error_reason_pb2 import ErrorReason

log = logging.getLogger(__name__)

DEFAULT_TTL = timedelta(seconds=15)
"""A leader election of the broker takes 4 to 9 seconds: a shorter lease would be lost in it."""


class Leases:
    """Takes, renews and gives back leases. `holder` names this replica for people who look into the bucket."""

    def __init__(self, bucket: LeaseBucket, *, holder: str, ttl: timedelta = DEFAULT_TTL) -> None:
        self._bucket = bucket
        self._holder = holder.encode()
        self._ttl = ttl

    @asynccontextmanager
    async def hold(self, key: str) -> AsyncIterator[None]:
        """Hold a lease for the time of the block; FLOW_BUSY if another replica has it.

        Where the broker gives it to nobody the block runs without: a lease saves work, and nothing rests on it.
        """
        try:
            revision = await self._bucket.acquire(key, self._holder, ttl=self._ttl)
        except WrongSequence as error:
            raise HandrailError(
                ErrorReason.ERROR_REASON_FLOW_BUSY, f"another replica holds {key}; try again shortly", key=key
            ) from error
        if revision is None:
            log.warning("lease %s: nobody holds it, and the broker refuses it; going on without", key)
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
        """Renew at a third of the time to live, for as long as this runs."""
        while True:
            await asyncio.sleep(self._ttl.total_seconds() / 3)
            try:
                self._revision = await self._bucket.renew(self._key, self._holder, self._revision, ttl=self._ttl)
            except Exception as error:
                # Lost or late: the work goes on, because the expectation on each append guards it.
                log.warning("lease %s could not be renewed: %s", self._key, error)

    async def give_back(self) -> None:
        """Release it, so that the next holder need not wait for its expiry."""
        try:
            await self._bucket.release(self._key, self._revision)
        except Exception as error:
            # Raising here would hide how the work under the lease went.
            log.info("lease %s runs out by itself: %s", self._key, error)
