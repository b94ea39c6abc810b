"""The coordinator process: it connects, prepares, serves, and shuts down gracefully on SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from handrail.coordinator.api.health import Health
from handrail.coordinator.api.server import Server, ServerSettings
from handrail.coordinator.lists.index import Index
from handrail.coordinator.reconcile.replica import Replica
from handrail.coordinator.reconcile.supervise import keep_running
from handrail.coordinator.reconcile.sweep import DEFAULT_INTERVAL
from handrail.coordinator.reconcile.traffic import Rate
from handrail.coordinator.reconcile.traffic_watch import DEFAULT_LIMIT
from handrail.mesh import collector, telemetry
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams.leases import DEFAULT_TTL

log = logging.getLogger(__name__)

_CONNECT_AGAIN = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoordinatorSettings:
    """The settings of a coordinator. `replicas` is the number of copies of each new stream: 1 or 3; None: as many as
    FLOW has.

    With `sweep_everything` the first sweep looks at all flows, not only at those since the last one. Agents that send
    more than `traffic_limit` are reported.
    """

    bus: BusSettings
    server: ServerSettings
    replicas: int | None = None
    lease_ttl: timedelta = DEFAULT_TTL
    sweep_interval: timedelta = DEFAULT_INTERVAL
    sweep_everything: bool = False
    traffic_limit: Rate = DEFAULT_LIMIT
    connect_timeout: timedelta = timedelta(seconds=60)


async def run_coordinator(settings: CoordinatorSettings, *, on_ready: Callable[[int], None] | None = None) -> None:
    """Runs a coordinator until SIGTERM or SIGINT; `on_ready` is called with the port it listens on.

    Raises HandrailError: BROKER_UNAVAILABLE, BROKER_TOO_OLD, FOREIGN_STREAM, STREAM_LOST or BROKER_PERMISSION; OSError
    if the address is taken.
    """
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    telemetry.configure("coordinator")
    try:
        bus = await _connect(settings, stopping)
        if bus is None:
            return
        async with bus:
            await _serve(bus, settings, stopping, on_ready)
    finally:
        telemetry.shutdown()


async def _serve(
    bus: NatsBus, settings: CoordinatorSettings, stopping: asyncio.Event, on_ready: Callable[[int], None] | None
) -> None:
    # Not the one of the API: callers' questions don't wait for the sweep's, and the sweep does not wait for theirs.
    index = Index(settings.server.index)
    replica = Replica(
        bus,
        holder=f"{socket.gethostname()}/{os.getpid()}",
        lease_ttl=settings.lease_ttl,
        sweep_interval=settings.sweep_interval,
        sweep_everything=settings.sweep_everything,
        traffic_limit=settings.traffic_limit,
        index=index,
    )
    server = Server(replica, settings.server)
    port = await server.start()
    try:
        await replica.prepare(replicas=settings.replicas)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(replica.run(stopping), name="replica")
            lost = tasks.create_task(_end_with(bus, stopping), name="connection")
            await server.set_serving(True)
            diagnosis = replica.diagnosis()
            health = Health(bus, server, diagnosis, notices=replica.notices)
            tasks.create_task(keep_running("health", health.keep, stopping, replica.troubles), name="health")
            server.warm_up()
            log.info("serving on port %d", port)
            collector.calm()
            if on_ready is not None:
                on_ready(port)
            await stopping.wait()
            await server.drain()
            await running
            lost.cancel()
    finally:
        # Does nothing after a drain; a server that still runs complains when the interpreter exits.
        await server.drain()
        await index.close()
    if bus.closed.is_set():
        raise BrokerUnavailable("the broker ended the connection for good; see the log for why")


async def _connect(settings: CoordinatorSettings, stopping: asyncio.Event) -> NatsBus | None:
    """Connects as soon as the broker answers; returns None if told to stop first."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.connect_timeout.total_seconds()
    while not stopping.is_set():
        try:
            return await NatsBus.connect(settings.bus)
        except BrokerUnavailable as error:
            if loop.time() > deadline:
                raise
            log.warning("%s; retrying", error.text)
            await asyncio.sleep(_CONNECT_AGAIN.total_seconds())
    return None


async def _end_with(bus: NatsBus, stopping: asyncio.Event) -> None:
    await bus.closed.wait()
    stopping.set()
