"""A provider's key set at an address: fetched off the event loop, cached, fetched anew when keys rotate."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection
from datetime import timedelta
from pathlib import Path

from handrail.coordinator.api.tokens.keys import Key, read_key_set
from handrail.mesh.https import FetchError, ask

log = logging.getLogger(__name__)

_CALLERS_PATIENCE = 2.0
"""How long a call waits for a fetch, in seconds: strangers must not be able to have many calls wait for long."""


class KeysUnavailable(Exception):
    """The key set could not be fetched for so long that its keys no longer count. The text says why."""


class KeyAddress:
    """The key set at `url`.

    It is fetched again after `refresh`, in the background. Keys that could not be fetched for `stale_after` don't
    count. Nothing makes it ask more often than once per `cooldown`: whoever sends tokens with made-up key ids can't
    have it ask the provider each time.
    """

    def __init__(
        self,
        url: str,
        algorithms: Collection[str],
        *,
        ca: Path | None = None,
        refresh: timedelta,
        stale_after: timedelta,
        cooldown: timedelta,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._algorithms = algorithms
        self._ca = ca
        self._refresh = refresh.total_seconds()
        self._stale_after = stale_after.total_seconds()
        self._cooldown = cooldown.total_seconds()
        self._clock = clock
        self._keys: tuple[Key, ...] = ()
        self._fetched_at: float | None = None
        self._asked_at: float | None = None
        self._asking: asyncio.Task[None] | None = None
        self._why = f"{url} was not asked yet"
        self.generation = 0
        """How often the set of keys was another than before."""

    async def keys(self) -> tuple[Key, ...]:
        """Returns the keys; raises KeysUnavailable."""
        if self._age() > self._stale_after:
            await self._ask()
            if self._age() > self._stale_after:
                raise KeysUnavailable(self._why)
        elif self._age() > self._refresh:
            self._begin()
        return self._keys

    async def keys_anew(self) -> tuple[Key, ...]:
        """Returns the keys for a token whose key is unknown: asks again, unless that was done a moment ago."""
        await self._ask()
        return await self.keys()

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    async def _ask(self) -> None:
        asking = self._begin()
        if asking is not None:
            # The callers share one fetch: one that gives up does not end it for the others.
            await asyncio.wait([asking], timeout=_CALLERS_PATIENCE)

    def _begin(self) -> asyncio.Task[None] | None:
        """Returns the fetch in progress, or a new one; None if the last one began less than the cooldown ago."""
        if self._asking is None or self._asking.done():
            if self._asked_at is not None and self._clock() - self._asked_at < self._cooldown:
                return None
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._fetch())
        return self._asking

    async def _fetch(self) -> None:
        began = self._clock()
        try:
            answer = await asyncio.to_thread(ask, self._url, ca=self._ca)
            if answer.status != 200:
                raise FetchError(f"{self._url} answers with HTTP {answer.status}")
            keys = read_key_set(answer.body, self._algorithms)
        except FetchError as error:
            self._failed(str(error))
        except ValueError as error:
            self._failed(f"what {self._url} answers {error}")
        except Exception:
            # Nobody waits for the task itself: an error that is not logged here would be lost.
            log.exception("the key set at %s can't be read", self._url)
            self._failed(f"what {self._url} answers can't be read")
        else:
            self._fetched_at = began
            if keys != self._keys:
                self.generation += 1
                log.info("the key set at %s has %d keys that may sign tokens", self._url, len(keys))
            self._keys = keys

    def _failed(self, why: str) -> None:
        self._why = why
        left = self._stale_after - self._age()
        log.warning("the key set can't be fetched: %s; %s", why, _left(left))


def _left(seconds: float) -> str:
    return f"the last one counts for {seconds:.0f} s more" if seconds > 0 else "no token is accepted"
