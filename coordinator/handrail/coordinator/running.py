"""Running a replica of the coordinator with its gRPC face, from the first connection to the orderly end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from datetime import timedelta

from handrail.coordinator.leases import DEFAULT_TTL
from handrail.coordinator.replica import Replica
from handrail.coordinator.server import Server, ServerSettings
from handrail.mesh.bus import Bus, BusSettings
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams import FLOW

log = logging.getLogger(__name__)

_PROBE_EVERY = timedelta(seconds=2)
_PROBE_TIMEOUT = timedelta(seconds=2)


async def run_coordinator(
    bus_settings: BusSettings,
    server_settings: ServerSettings,
    *,
    holder: str,
    stopping: asyncio.Event,
    replicas: int = 1,
    lease_ttl: timedelta = DEFAULT_TTL,
    on_listening: Callable[[int], None] = lambda port: None,
) -> None:
    """Run until `stopping` is set. `on_listening` is told the port once calls are served.

    The server listens before the streams are there, as not healthy. Raises HandrailError (BROKER_UNAVAILABLE,
    BROKER_PERMISSION, BROKER_TOO_OLD, FOREIGN_STREAM), OSError for an address that can't be listened on or a key file
    that can't be read, ValueError for one that holds no key.
    """
    async with await Bus.connect(bus_settings) as bus:
        replica = Replica(bus, holder=holder, lease_ttl=lease_ttl)
        server = Server(replica, server_settings)
        port = await server.start()
        try:
            await replica.prepare(replicas=replicas)
            await server.set_serving(True)
            on_listening(port)
            await _run_parts(bus, replica, server, stopping)
        finally:
            await server.drain()


async def _run_parts(bus: Bus, replica: Replica, server: Server, stopping: asyncio.Event) -> None:
    try:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(replica.run(stopping), name="replica")
            tasks.create_task(_keep_health(bus, server, stopping), name="health")
            tasks.create_task(_drain_at_end(server, stopping), name="drain")
    except* HandrailError as errors:
        # The first is the cause; the group of one that carries it says nothing more.
        first = next(_leaves(errors))
        raise first from None


async def _drain_at_end(server: Server, stopping: asyncio.Event) -> None:
    await stopping.wait()
    await server.drain()


async def _keep_health(bus: Bus, server: Server, stopping: asyncio.Event) -> None:
    """Say not healthy while the broker, or its stream, does not answer."""
    healthy = True
    while not stopping.is_set():
        if bus.closed.is_set():
            raise BrokerUnavailable("the broker closed the connection for good; its log says why")
        try:
            await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", timeout=_PROBE_TIMEOUT)
            answers = True
        except HandrailError as error:
            answers = False
            if healthy:
                log.warning("not healthy: %s", error.text)
        if answers != healthy:
            healthy = answers
            await server.set_serving(healthy)
        try:
            await asyncio.wait_for(stopping.wait(), _PROBE_EVERY.total_seconds())
        except TimeoutError:
            continue


def _leaves(group: BaseExceptionGroup[HandrailError]) -> Iterator[HandrailError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
