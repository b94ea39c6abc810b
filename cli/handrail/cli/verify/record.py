"""Subjects and bodies of stream FLOW, decoded independently, from `docs/wire.md`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime

from google.protobuf.message import DecodeError

from handrail.v1.event_pb2 import Event

OUTCOMES = frozenset({"event", "proposal", "released"})
"""Kinds with the id of an outcome."""

COMMANDS = frozenset({"retry", "undo"})
"""Kinds that are addressed to the agent in the agent token."""

COORDINATOR = "coordinator"


@dataclass(frozen=True, slots=True)
class Stored:
    """A message as a stream holds it. `time` is the stream's timestamp."""

    sequence: int
    subject: str
    body: bytes
    time: datetime


@dataclass(frozen=True, slots=True)
class Message:
    """A readable message of a flow: the tokens of its subject, and its envelope."""

    sequence: int
    time: datetime
    flow_type: str
    flow_id: str
    kind: str
    agent: str
    event_id: str
    type: str
    event: Event

    @property
    def data(self) -> bytes:
        """The domain message, serialized."""
        return self.event.data.value


def derived(*fields: str) -> str:
    """Derives an id: SHA-256 over the fields, each prefixed with its length, cut to 16 bytes, in hex."""
    hashed = b"".join(len(each.encode()).to_bytes(4, "big") + each.encode() for each in fields)
    return hashlib.sha256(hashed).digest()[:16].hex()


def flow_of(subject: str) -> tuple[str, str] | None:
    """Returns type and id of the flow that a subject belongs to; None if it is not a flow's subject."""
    tokens = subject.split(".", 6)
    return (tokens[1], tokens[2]) if len(tokens) == 7 and tokens[0] == "flow" else None


def read(stored: Stored) -> Message | None:
    """Decodes a message; None if it can't be read, if subject and body disagree, or if its id is not the derived one.

    Such a message is void for every reader. It is in quarantine and blocks nothing.
    """
    tokens = stored.subject.split(".", 6)
    if len(tokens) != 7 or tokens[0] != "flow":
        return None
    _, flow_type, flow_id, kind, agent, event_id, type_name = tokens
    try:
        event = Event.FromString(stored.body)
    except DecodeError:
        return None
    said = (event.flow_type, event.flow_id, event.event_id, event.data.type_url.rpartition("/")[2])
    speaker = COORDINATOR if kind in COMMANDS else agent
    if said != (flow_type, flow_id, event_id, type_name) or event.source != speaker:
        return None
    message = Message(stored.sequence, stored.time, flow_type, flow_id, kind, agent, event_id, type_name, event)
    return message if _id_follows(message) else None


def _id_follows(message: Message) -> bool:
    event = message.event
    if message.kind in OUTCOMES:
        number = (str(event.run), str(event.output_index))
        return message.event_id == derived("outcome", message.flow_id, event.step, event.root, *number)
    if message.kind == "undone":
        return message.event_id == derived("undone", message.flow_id, event.root)
    return True
