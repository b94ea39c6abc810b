"""Health as load balancers see it: not serving while the broker, or its stream, does not answer."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from handrail.coordinator.server import Server
from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW

log = logging.getLogger(__name__)

_PROBE_EVERY = timedelta(seconds=2)
_PROBE_TIMEOUT = timedelta(seconds=2)


async def keep_health(bus: Bus, server: Server, stopping: asyncio.Event) -> None:
    """Ask the broker for the stream every two seconds, and say what comes of it, until `stopping` is set."""
    healthy = True
    while not stopping.is_set():
        answers = await _answers(bus)
        if answers != healthy:
            healthy = answers
            log.warning("the broker %s", "answers again" if healthy else "does not answer: not healthy")
            await server.set_serving(healthy)
        try:
            await asyncio.wait_for(stopping.wait(), _PROBE_EVERY.total_seconds())
        except TimeoutError:
            continue


async def _answers(bus: Bus) -> bool:
    try:
        await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=_PROBE_TIMEOUT)
    except HandrailError:
        return False
    return True
