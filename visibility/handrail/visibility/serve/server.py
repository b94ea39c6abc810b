"""The gRPC server of the index: for those who know the secret, and over TLS beyond this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import grpc.aio
from sqlalchemy import Engine

from handrail.index.v1.index_service_pb2_grpc import add_IndexServiceServicer_to_server
from handrail.mesh.bus import Bus
from handrail.mesh.setting_parsers import is_loopback
from handrail.mesh.shared_secret import SharedSecret
from handrail.mesh.tls import Certificates, TlsFiles
from handrail.visibility.archive.folder import Folder
from handrail.visibility.retention.shelf_mark import ShelfMark
from handrail.visibility.serve.archived import ArchivedFlows
from handrail.visibility.serve.guard import Guard
from handrail.visibility.serve.head import Head
from handrail.visibility.serve.service import IndexService
from handrail.visibility.serve.snapshot import Snapshots

log = logging.getLogger(__name__)

_GRACE = timedelta(seconds=2)
"""How long questions in progress may take at shutdown: they change nothing."""

_IDLE = timedelta(seconds=30)
"""How long a connection without a call is kept. Coordinators connect again with their next question."""

_READINGS = 2
"""How many pages of archived flows are read at the same time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeSettings:
    """Where the index is served: host and port (0: a free one), the file with the secret, and TLS, if it is on.

    There are `connections` at most, and one that is `idle` for so long is closed.
    """

    address: str
    secret: Path
    tls: TlsFiles | None = None
    connections: int = 500
    idle: timedelta = _IDLE


class IndexServer:
    """Serves an index, in whatever state it is, and flows of its archive."""

    def __init__(
        self,
        engine: Engine,
        bus: Bus,
        settings: ServeSettings,
        archive: Folder | None = None,
        *,
        mark: ShelfMark | None = None,
    ) -> None:
        """With a mark, an index that lacks archived flows is not answered from.

        Raises ValueError if other machines could ask in plain text, and for files that can't be used.
        """
        if settings.tls is None and not is_loopback(settings.address):
            raise ValueError(f"{settings.address} can be reached from other machines: serve the index there with TLS")
        self._address = settings.address
        self._credentials = None if settings.tls is None else Certificates(settings.tls).credentials()
        self._snapshots = Snapshots(engine, mark)
        # Whoever reads much of the archive keeps nobody from lists.
        self._readings = Snapshots(engine, mark, at_once=_READINGS)
        # Nobody who lists keeps the sweep from its flows.
        self._sweeps = Snapshots(engine, mark, at_once=1)
        # No `maximum_concurrent_rpcs`: it counts the calls of strangers, too. `Guard` counts the others.
        guard = Guard(SharedSecret(settings.secret))
        self._server = grpc.aio.server(interceptors=[guard], options=_options(settings))
        service = IndexService(self._snapshots, Head(bus), self._readings, self._sweeps, ArchivedFlows(archive))
        add_IndexServiceServicer_to_server(service, self._server)

    async def start(self) -> int:
        """Starts to listen and returns the port; raises OSError if it is taken or can't be bound."""
        try:
            if self._credentials is None:
                port = self._server.add_insecure_port(self._address)
            else:
                port = self._server.add_secure_port(self._address, self._credentials)
        except RuntimeError as error:
            raise OSError(
                f"can't listen on {self._address}: the port is taken, or this host does not have the address"
            ) from error
        await self._server.start()
        log.info("the index is served on port %d", port)
        return port

    async def stop(self) -> None:
        """Ends the server."""
        await self._server.stop(_GRACE.total_seconds())
        await asyncio.to_thread(self._snapshots.close)
        await asyncio.to_thread(self._readings.close)
        await asyncio.to_thread(self._sweeps.close)


def _options(settings: ServeSettings) -> Sequence[tuple[str, int]]:
    return (
        # Without this, a second server on the same port would start and receive half of the calls.
        ("grpc.so_reuseport", 0),
        ("grpc.max_allowed_incoming_connections", settings.connections),
        ("grpc.max_connection_idle_ms", round(settings.idle.total_seconds() * 1000)),
        ("grpc.server_handshake_timeout_ms", 10_000),
        # Identity alone: gRPC compares the limit below with what arrives, and inflates it without any limit.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        ("grpc.max_receive_message_length", 1 << 20),
    )
