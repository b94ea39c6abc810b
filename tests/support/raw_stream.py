"""The FLOW stream as bytes, read with nats-py and a few lines of protobuf's wire format; imports nothing of Handrail.

A test that takes its evidence from here does not depend on the tested code, not even on its generated code.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import nats
from nats.js.api import RawStreamMsg

SERVER = Path(sys.executable).with_name("nats-server")

# The account with the streams, and field numbers in handrail/v1/event.proto and google/protobuf/any.proto.
ACCOUNT = "HANDRAIL"
DATA = 15
ANY_VALUE = 2

Fields = Mapping[int, Sequence[int | bytes]]


@dataclass(frozen=True, slots=True)
class Raw:
    """One message of the stream: the tokens of its subject, the fields of its envelope and of its domain message."""

    sequence: int
    flow_id: str
    kind: str
    agent: str
    type: str
    envelope: Fields
    data: Fields


def read(store: Path, folder: Path) -> list[Raw]:
    """Reads the FLOW stream in a JetStream folder, through its own server without permissions.

    `folder` is for the server's configuration and the file with its port.
    """
    config = folder / "raw.conf"
    config.write_text(
        f'listen: "127.0.0.1:-1"\nports_file_dir: "{folder}"\njetstream {{ store_dir: "{store}" }}\n'
        f"accounts {{ {ACCOUNT} {{ jetstream: enabled, users: [{{ user: raw, password: raw }}] }} }}\n"
    )
    with (folder / "raw.log").open("wb") as log:
        server = subprocess.Popen([SERVER, "-c", config], stdout=log, stderr=log)
    try:
        return asyncio.run(_read(_addresses(folder / f"nats-server_{server.pid}.ports")))
    finally:
        server.terminate()
        server.wait(20)


def _addresses(ports: Path) -> list[str]:
    """Waits until a server listens and returns its address, from the ports file that it writes."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(FileNotFoundError, json.JSONDecodeError):
            return list(json.loads(ports.read_text())["nats"])
        time.sleep(0.05)
    raise TimeoutError(f"no nats-server wrote {ports}")


async def _read(servers: list[str]) -> list[Raw]:
    client = await nats.connect(servers, user="raw", password="raw")
    try:
        stream = client.jetstream()
        state = (await stream.stream_info("FLOW")).state
        messages = [await stream.get_msg("FLOW", seq) for seq in range(state.first_seq, state.last_seq + 1)]
        return [_parse(message) for message in messages]
    finally:
        await client.close()


def _parse(message: RawStreamMsg) -> Raw:
    assert message.subject
    assert message.seq
    _, _, flow_id, kind, agent, _, message_type = message.subject.split(".", 6)
    envelope = fields(message.data or b"")
    (data,) = envelope[DATA]
    assert isinstance(data, bytes)
    (value,) = fields(data).get(ANY_VALUE, [b""])
    assert isinstance(value, bytes)
    return Raw(message.seq, flow_id, kind, agent, message_type, envelope, fields(value))


def fields(message: bytes) -> Fields:
    """The fields of a protobuf message by number: numbers as they are on the wire, everything else as bytes.

    https://protobuf.dev/programming-guides/encoding/
    """
    found: dict[int, list[int | bytes]] = {}
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == 0:
            value, at = _varint(message, at)
            found.setdefault(number, []).append(value)
            continue
        if wire_type == 2:
            length, at = _varint(message, at)
        else:
            length = {1: 8, 5: 4}[wire_type]
        assert at + length <= len(message)
        found.setdefault(number, []).append(message[at : at + length])
        at += length
    return found


def text(message: Fields, number: int) -> str:
    """A string field; empty if it is absent."""
    value = message.get(number, [b""])[-1]
    assert isinstance(value, bytes)
    return value.decode()


def integer(message: Fields, number: int) -> int:
    """A field of a signed integer or an enum; 0 if it is absent."""
    value = message.get(number, [0])[-1]
    assert isinstance(value, int)
    return value - 2**64 if value >= 2**63 else value


def submessage(message: Fields, number: int) -> Fields:
    """A message field."""
    value = message[number][-1]
    assert isinstance(value, bytes)
    return fields(value)


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
