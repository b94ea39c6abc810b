"""A small HTTP/1.1 client: a load generator should cost little beside what it loads."""

from __future__ import annotations

import asyncio
from http import HTTPStatus


class HttpClient:
    """Calls of a server on this port of the loopback address. It keeps as many connections as calls ran at once."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def post(self, path: str, body: bytes) -> bytes:
        """Sends JSON and returns the answer's body. Raises RuntimeError for any status but success."""
        reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection("127.0.0.1", self._port)
        writer.write(
            f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        status = int(head.split(" ", 2)[1])
        answer = await _body(reader, head)
        self._idle.append((reader, writer))
        if status >= HTTPStatus.BAD_REQUEST:
            raise RuntimeError(f"{path}: {status} {answer[:200]!r}")
        return answer

    async def close(self) -> None:
        """Closes the connections."""
        for _, writer in self._idle:
            writer.close()


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    for line in head.split("\r\n"):
        name, _, value = line.partition(":")
        if name == "content-length":
            return await reader.readexactly(int(value))
    if "transfer-encoding: chunked" not in head:
        return b""
    parts = []
    while size := int((await reader.readline()).split(b";")[0], 16):
        parts.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return b"".join(parts)
