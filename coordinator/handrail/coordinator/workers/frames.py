"""What the coordinator and a worker process say to each other: messages of several parts, as bytes.

A request is the name of a job and its input. An answer is a header in JSON, then the results of the job.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Sequence
from typing import BinaryIO, cast

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_LENGTH = struct.Struct(">I")

MAX_PARTS, MAX_BYTES = 8, 64 << 20
"""More is never sent; a process that says so is not believed."""


def packed(parts: Sequence[bytes]) -> bytes:
    """A message of these parts."""
    lengths = (_LENGTH.pack(len(part)) + part for part in parts)
    return _LENGTH.pack(len(parts)) + b"".join(lengths)


def read(stream: BinaryIO) -> list[bytes]:
    """The next message of a blocking stream. Raises EOFError at its end."""

    def exactly(size: int) -> bytes:
        data = stream.read(size)
        if len(data) < size:
            raise EOFError
        return data

    (number,) = _LENGTH.unpack(exactly(_LENGTH.size))
    return [exactly(*_LENGTH.unpack(exactly(_LENGTH.size))) for _ in range(number)]


async def receive(stream: asyncio.StreamReader) -> list[bytes]:
    """The next message of a process. Raises EOFError if it ended, or says what none of ours would."""

    async def length(most: int) -> int:
        (number,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        if number > most:
            raise EOFError
        return int(number)

    try:
        return [await stream.readexactly(await length(MAX_BYTES)) for _ in range(await length(MAX_PARTS))]
    except (asyncio.IncompleteReadError, ConnectionError) as error:
        raise EOFError from error


def answer(parts: Sequence[bytes]) -> bytes:
    """The answer with the results of a job."""
    return packed([b"{}", *parts])


def refusal(error: HandrailError) -> bytes:
    """The answer of a job that raised an error."""
    header = {"reason": int(error.reason), "text": error.text, "metadata": error.metadata}
    return packed([json.dumps(header).encode()])


def results(parts: Sequence[bytes]) -> list[bytes]:
    """The results in an answer; raises the error that the job raised."""
    header = json.loads(parts[0])
    if "reason" in header:
        metadata = {str(key): str(value) for key, value in header["metadata"].items()}
        raise HandrailError(cast("ErrorReason.ValueType", int(header["reason"])), str(header["text"]), **metadata)
    return list(parts[1:])
