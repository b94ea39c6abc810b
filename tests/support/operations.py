"""Counts what a flow costs: each request that a process sends to the broker, and calls of functions in this process.

`Meter` stands between a process and the broker and reads what passes: it counts what was really sent, however the code
above the wire is built.
"""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

_CHUNK = 65_536

_OPERATIONS = {
    r"\$JS\.API\.DIRECT\.GET\.FLOW": "direct gets",
    r"\$JS\.API\.STREAM\.MSG\.GET\.": "leader gets",
    r"\$JS\.API\.STREAM\.PURGE\.TIMER": "purges",
    r"\$KV\.leases\.": "leases",
    "hint": "hints",
    r"timer\.": "timers",
    r"flow\.": "publishes",
}
"""Maps how a subject begins to what is counted. A lease counts twice: it is acquired and released."""


class Sent(NamedTuple):
    """One message that a process sent to the broker."""

    subject: str
    body: bytes


class Meter:
    """What one or more processes sent to the broker. They connect to `url`."""

    def __init__(self) -> None:
        self.url = ""
        self.sent: list[Sent] = []

    def count(self, flow_ids: Collection[str], sequences: Collection[int]) -> Counter[str]:
        """The operations on these flows, whose messages have these sequences. A request about several counts once."""
        counts: Counter[str] = Counter()
        for subject, body in self.sent:
            if subject.startswith("$JS.ACK.FLOW."):
                counts["acks"] += body == b"+ACK" and int(subject.split(".")[5]) in sequences
            elif any(each in subject or each.encode() in body for each in flow_ids):
                counts[_operation(subject)] += 1
        return +counts

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
        """Passes one connection through to the broker."""
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", port)
        both = [self._noting(reader, broker_writer), _pump(broker_reader, writer)]
        pumps = [asyncio.create_task(each) for each in both]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in pumps:
                each.cancel()
            writer.close()
            broker_writer.close()

    async def _noting(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while line := await source.readline():
            target.write(line)
            command, *arguments = line.split()
            if command in (b"PUB", b"HPUB"):
                payload = await source.readexactly(int(arguments[-1]) + len(b"\r\n"))
                target.write(payload)
                headers = int(arguments[-2]) if command == b"HPUB" else 0
                self.sent.append(Sent(arguments[0].decode(), payload[headers:-2]))
            await target.drain()


async def _pump(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK):
        target.write(data)
        await target.drain()


def _operation(subject: str) -> str:
    for beginning, operation in _OPERATIONS.items():
        if re.match(beginning, subject):
            return operation
    return subject  # shown as it is: whoever sends something new gives it a name here


@asynccontextmanager
async def metered(port: int) -> AsyncIterator[Meter]:
    """A meter before the broker on this port of the loopback address, while the block runs."""
    meter = Meter()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await meter.connected(reader, writer, port)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    meter.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield meter
    finally:
        server.close()
        await server.wait_closed()


@contextmanager
def counted_calls(function: Callable[..., Any], flow_of: Callable[..., str]) -> Iterator[Counter[str]]:
    """Counts the calls of a function in this process while the block runs, by flow.

    `flow_of` gets the arguments and returns the flow's id. The function is replaced under each name by which a loaded
    module knows it.
    """
    calls: Counter[str] = Counter()

    def counting(*arguments: Any, **named: Any) -> Any:
        calls[flow_of(*arguments)] += 1
        return function(*arguments, **named)

    places = [
        (module, name)
        for module in list(sys.modules.values())
        for name, value in list(getattr(module, "__dict__", {}).items())
        if value is function
    ]
    for module, name in places:
        setattr(module, name, counting)
    try:
        yield calls
    finally:
        for module, name in places:
            setattr(module, name, function)
