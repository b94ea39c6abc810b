"""Troubles: what keeps failing in this process, by loop and subject, for the log, metrics and health.

A failure that is retried is not fatal; unreported, it would be a flow that hangs silently.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from handrail.mesh import telemetry
from handrail.mesh.errors import HandrailError

log = logging.getLogger(__name__)

BUG = "BUG"
"""Stands for an exception that was not raised on purpose."""

_KEPT = 1000
"""The most troubles that are remembered; further ones are only logged and counted."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure without a success since: `about` is a flow id, or empty if it concerns the whole loop.

    `error` is the reason of an error that Handrail raises on purpose (an unavailable broker, a flow that another
    replica holds), or `BUG`.
    """

    loop: str
    about: str
    text: str
    since: datetime
    times: int
    error: str


class Troubles:
    """The unresolved failures of this process. One instance per process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Trouble] = {}

    def __iter__(self) -> Iterator[Trouble]:
        return iter(list(self._open.values()))

    def failed(self, loop: str, about: str, error: BaseException) -> Trouble:
        """Records a failure. A bug is logged with its traceback, the first time and each tenth time."""
        reason = error.reason_name if isinstance(error, HandrailError) else BUG
        text = error.text if isinstance(error, HandrailError) else f"{type(error).__name__}: {error}"
        before = self._open.get((loop, about))
        trouble = (
            Trouble(loop, about, text, datetime.now(UTC), 1, reason)
            if before is None
            else replace(before, text=text, times=before.times + 1, error=reason)
        )
        if before is not None or len(self._open) < _KEPT:
            self._open[loop, about] = trouble
        telemetry.count("failures", loop=loop, error=reason)
        subject = f"{loop}: flow {about}" if about else loop
        if reason != BUG:
            log.info("%s is retried (failed %d times): %s", subject, trouble.times, text)
        elif trouble.times % 10 == 1:
            log.error("%s failed %d times and is retried", subject, trouble.times, exc_info=error)
        else:
            log.error("%s failed %d times and is retried: %s", subject, trouble.times, text)
        return trouble

    def succeeded(self, loop: str, about: str = "") -> None:
        """Records a success: earlier failures are resolved."""
        self._open.pop((loop, about), None)
