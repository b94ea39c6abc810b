"""A network between a client and a server that a test slows down or cuts off, and that counts what it carries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class SlowLink:
    """Carries bytes to a server and back.

    Answers are cut into pieces of `piece` bytes with `pause` seconds between them; they wait until `answers` is set.
    """

    def __init__(self) -> None:
        self.port = 0
        self.piece = 1 << 16
        self.pause = 0.0
        self.answers = asyncio.Event()
        self.answers.set()
        self.asked = b""
        self.carried = 0
        """Bytes of answers."""

    def requests(self, api: bytes) -> int:
        """How many messages the client has published on subjects that begin so."""
        return self.asked.count(b"PUB " + api)

    async def ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries what the client sends."""
        while data := await reader.read(1 << 16):
            self.asked += data
            writer.write(data)
        writer.close()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carries what the server sends."""
        while data := await reader.read(1 << 16):
            while data:
                piece, data = data[: self.piece], data[self.piece :]
                await self.answers.wait()
                self.carried += len(piece)
                writer.write(piece)
                if self.pause:
                    await asyncio.sleep(self.pause)
        writer.close()


@asynccontextmanager
async def slow_link(port: int) -> AsyncIterator[SlowLink]:
    """A link to the server on this port, for as long as the block runs."""
    link = SlowLink()
    carrying: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        carrying.add(task)
        with suppress(ConnectionError, asyncio.CancelledError):
            theirs, ours = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.gather(link.ask(reader, ours), link.answer(theirs, writer))
            finally:
                ours.close()
        writer.close()

    server = await asyncio.start_server(carry, "127.0.0.1", 0)
    link.port = server.sockets[0].getsockname()[1]
    try:
        yield link
    finally:
        server.close()
        for task in carrying:
            task.cancel()
        await asyncio.gather(*carrying)
        await asyncio.sleep(0)
