"""Snapshots of a stream: its messages and consumers as the broker packs them, in a file, and back into a stream."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_CHUNK = 128 << 10
_SILENCE = timedelta(seconds=30)
"""How long the broker may take for the next piece."""

_PART = ".part"


async def take(bus: NatsBus, stream: str, file: Path) -> Mapping[str, Any]:
    """Writes a snapshot of a stream with its consumers to a file, on the disk; returns the state that it has.

    Raises ApiError, BrokerUnavailable also if a piece got lost, and OSError if the file can't be written: then it is
    not there.
    """
    inbox = bus.connection.inbox.new_prefix()
    arrived: asyncio.Queue[Message] = asyncio.Queue()
    subscription = await bus.connection.subscribe(inbox, arrived.put_nowait)
    part = file.with_name(file.name + _PART)
    try:
        request = {"deliver_subject": inbox, "chunk_size": _CHUNK, "no_consumers": False, "jsck": True}
        answer = await bus.request_json(f"$JS.API.STREAM.SNAPSHOT.{stream}", request)
        with part.open("wb") as output:
            pieces = 0
            while chunk := await _next(stream, arrived):
                output.write(chunk.data)
                if chunk.reply:  # the last piece has none: whether it came, only what is in the file tells
                    pieces += 1
                    _require(stream, chunk, pieces)
                    bus.connection.send(chunk.reply, b"")
            output.flush()
            os.fsync(output.fileno())
        os.rename(part, file)
    finally:
        await subscription.unsubscribe()
    state: Mapping[str, Any] = answer["state"]
    return state


async def restore(bus: NatsBus, config: Mapping[str, Any], state: Mapping[str, Any], file: Path) -> None:
    """Creates a stream with this configuration from a snapshot. If it is interrupted, there is no stream.

    Raises ApiError, BrokerUnavailable, OSError, and INTERNAL with what the broker says if it refuses a piece.
    """
    name = config["name"]
    request = {"config": config, "state": state}
    answer = await bus.request_json(f"$JS.API.STREAM.RESTORE.{name}", request)
    target = str(answer["deliver_subject"])
    with file.open("rb") as snapshot:
        while chunk := snapshot.read(_CHUNK):
            _refuse_an_error(name, await bus.connection.request(target, chunk, timeout=_SILENCE))
    _refuse_an_error(name, await bus.connection.request(target, b"", timeout=10 * _SILENCE))


def digest_of(file: Path) -> str:
    """The SHA-256 of a file. Raises OSError."""
    digest = sha256()
    with file.open("rb") as snapshot:
        while chunk := snapshot.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


async def _next(stream: str, arrived: asyncio.Queue[Message]) -> Message | None:
    """The next piece; None at the end."""
    try:
        async with asyncio.timeout(_SILENCE.total_seconds()):
            message = await arrived.get()
    except TimeoutError:
        raise BrokerUnavailable(f"the snapshot of {stream} stopped: run the command again") from None
    if message.data:
        return message
    if message.block and b" 204" not in message.block.split(b"\r\n")[0]:
        raise BrokerUnavailable(f"the snapshot of {stream} failed: {message.block.decode(errors='replace')[:200]}")
    return None


def _require(stream: str, chunk: Message, index: int) -> None:
    """Raises BrokerUnavailable unless a piece is the one with this index, and as long as the broker says."""
    *_, size, named = chunk.reply.split(".")
    if (size, named) != (str(len(chunk.data)), str(index)):
        raise BrokerUnavailable(f"piece {index} of the snapshot of {stream} got lost: run the command again")


def _refuse_an_error(stream: str, answer: Message) -> None:
    error = json.loads(answer.data).get("error") if answer.data else None
    if error is not None:
        text = f"the broker refuses the snapshot of {stream}: {error.get('description')}"
        raise HandrailError(ErrorReason.ERROR_REASON_INTERNAL, text, stream=stream)
