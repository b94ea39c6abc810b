"""Prints every message of a reader's flow types as a line of JSON, from a sequence on, and then each new one.

    python reader.py analytics --contracts payments.v1.payments_pb2 --after 0

The settings of the broker are those of every part of Handrail (docs/settings.md): HANDRAIL_NATS,
HANDRAIL_NATS_NKEY_FILE. docs/readers.md explains it.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import sys
from typing import Any

from google.protobuf.json_format import Error, MessageToDict
from google.protobuf.message import DecodeError

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.printable import clean, json_text
from handrail.mesh.setting import Settings
from handrail.mesh.settings import bus_settings
from handrail.mesh.streams.reading import read
from handrail.mesh.wire.envelope import Recorded, decode


async def print_all(bus: NatsBus, reader: str, after: int) -> None:
    """Prints everything after a sequence, and goes on for ever, whatever happens to the broker."""
    while True:
        try:
            async for message in read(bus, reader, after=after):
                print(line(message), flush=True)
                after = message.sequence  # a real reader stores it together with what it made of the message
        except BrokerUnavailable as error:
            print(clean(error.text), file=sys.stderr, flush=True)


def line(message: RawMessage) -> str:
    """A message as JSON. What it says is untrusted, so nothing is printed raw."""
    try:
        found = decode(message.subject, message.body, sequence=message.sequence, time=message.time)
        return json_text({"sequence": message.sequence, **described(found)})
    except HandrailError as error:
        return json_text({"sequence": message.sequence, "subject": message.subject, "void": error.text})


def described(found: Recorded) -> dict[str, Any]:
    """The envelope, and the message of the domain in it."""
    address = found.address
    try:
        data = MessageToDict(found.event.data, preserving_proto_field_name=True)
    except (TypeError, DecodeError, Error) as error:  # the type is unknown to this program, or the bytes are none of it
        data = {"unreadable": str(error)}
    return {
        "flow_id": address.flow_id,
        "kind": found.kind.value,
        "agent": found.agent,
        "type": found.type,
        "data": data,
    }


async def main() -> None:
    """Runs until it is stopped."""
    parser = argparse.ArgumentParser(description="Print the messages of a reader's flow types.")
    parser.add_argument("reader", help="the name of the reader")
    parser.add_argument("--contracts", action="append", default=[], metavar="MODULE", help="generated code to import")
    parser.add_argument("--after", type=int, default=0, metavar="SEQUENCE", help="the last sequence that was handled")
    arguments = parser.parse_args()
    for module in arguments.contracts:
        importlib.import_module(module)
    async with await NatsBus.connect(bus_settings(Settings.of_process({}), arguments.reader)) as bus:
        await print_all(bus, arguments.reader, arguments.after)


if __name__ == "__main__":
    asyncio.run(main())
