"""A server that says it is a nats-server of another age: as much of the protocol as a client needs to ask JetStream
what it can do. A stand-in for releases that can't be installed beside the present one.

https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any


class _Client:
    """One connection."""

    def __init__(self, writer: asyncio.StreamWriter, version: str, api: dict[str, Any]) -> None:
        self._writer = writer
        self._api = api
        self._inbox_id = b""
        info = {"server_id": "X", "server_name": "old", "version": version, "proto": 1, "headers": True}
        self._send(b"INFO %s" % json.dumps({**info, "max_payload": 1 << 20, "jetstream": True}).encode())

    def heard(self, line: bytes) -> int:
        """Answer a line; returns how many bytes of a body follow it."""
        verb, *words = line.split()
        match verb.upper():
            case b"PING":
                self._send(b"PONG")
            case b"SUB":
                self._inbox_id = words[-1]
            case b"PUB":
                subject, reply, size = words
                if subject == b"$JS.API.INFO":
                    body = json.dumps({"type": "io.nats.jetstream.api.v1.account_info_response", "api": self._api})
                    self._send(b"MSG %s %s %d\r\n%s" % (reply, self._inbox_id, len(body), body.encode()))
                return int(size) + 2
        return 0

    def _send(self, line: bytes) -> None:
        self._writer.write(line + b"\r\n")


@asynccontextmanager
async def serving(version: str, *, api_level: int | None) -> AsyncIterator[str]:
    """A server of this version for as long as the block runs; its URL. Before 2.11 there was no API level."""
    api: dict[str, Any] = {"total": 0, "errors": 0} | ({} if api_level is None else {"level": api_level})

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = _Client(writer, version, api)
        try:
            while line := await reader.readline():
                await reader.readexactly(client.heard(line))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
