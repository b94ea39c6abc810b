"""Writes evidence. Pure: it makes lines."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.payload_json import Json
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event, RecordedEvent
from handrail.v1.event_pb2 import Kind as KindName
from handrail.v1.flow_service_pb2 import Flow
from handrail.v1.template_pb2 import StoredTemplate

FORMAT = "handrail-evidence/1"

PLAIN = Contracts.from_descriptor_set(b"")
"""Opens Handrail's own messages."""

_OTHER_KIND = KindName.ValueType(-1)
"""One that this version does not know."""

UNREADABLE = "it can't be read as an event: the API tells where it is and why it does not count, not what it says"
NO_TEMPLATE = "version {version} of the template can't be read: payloads of its messages are shown as bytes"


@dataclass(frozen=True, slots=True)
class Export:
    """Who wrote the evidence and when, and the person's address of the coordinator."""

    by: str
    time: datetime
    coordinator: str


class Writer:
    """Writes the evidence of one flow: `begin`, then `messages` as often as there are pages, then `end`.

    Each returns lines as bytes, to be written one after the other.
    """

    def __init__(self, flow: Flow, templates: Sequence[StoredTemplate], export: Export) -> None:
        self._flow = flow
        self._templates = templates
        self._export = export
        self._whole = sha256()
        self._parts: dict[str, Json] = {}
        self._of_messages = sha256()
        self._count = self._first = self._last = 0
        self._withheld: list[str] = []
        self._contracts = {each.template.version: Contracts.from_descriptor_set(each.descriptors) for each in templates}

    def begin(self) -> Iterator[bytes]:
        """The lines before the messages."""
        flow = self._flow
        export: dict[str, Json] = {
            "by": self._export.by,
            "time": moment(self._export.time),
            "coordinator": self._export.coordinator,
            "flowId": flow.flow_id,
            "lastSequence": str(flow.last_sequence),
        }
        shown = self._opened(flow.template_version).to_json(flow)
        yield self._line(f'{{"format": "{FORMAT}",')
        yield self._part("export", export)
        yield self._part("flow", shown)
        yield self._part("templates", [template_record(each) for each in self._templates])
        yield self._line('"messages": [')

    def messages(self, page: Iterable[RecordedEvent]) -> Iterator[bytes]:
        """The lines of messages, in stream order; what came after the flow was read is left out."""
        for each in page:
            if each.sequence > self._flow.last_sequence:
                return
            record = json_line(message_record(each, self._flow, self._opened(each.event.template_version)))
            self._of_messages.update(record.encode() + b"\n")
            if not each.HasField("event"):
                self._withheld.append(f"message {each.sequence}: {UNREADABLE}")
            yield self._line(f",{record}" if self._count else record)
            self._first = self._first or each.sequence
            self._count, self._last = self._count + 1, each.sequence

    @property
    def is_whole(self) -> bool:
        """Whether the last message of the flow was written, as it was read. Otherwise the messages are behind."""
        return self._last == self._flow.last_sequence

    def end(self) -> Iterator[bytes]:
        """The lines after the messages."""
        self._withheld += without_template(self._flow, self._contracts)
        manifest: dict[str, Json] = {
            **self._parts,
            "messages": {
                "count": self._count,
                "firstSequence": str(self._first),
                "lastSequence": str(self._last),
                "sha256": self._of_messages.hexdigest(),
            },
        }
        yield self._line("],")
        yield self._part("withheld", [*self._withheld])
        yield self._line(f'"manifest": {json_line(manifest)},')
        yield f'"sha256": "{self._whole.hexdigest()}"}}\n'.encode()

    def _opened(self, version: int) -> Contracts:
        return self._contracts.get(version) or self._contracts.get(self._flow.template_version, PLAIN)

    def _part(self, name: str, value: Json) -> bytes:
        text = json_line(value)
        self._parts[name] = {"sha256": sha256(text.encode()).hexdigest()}
        return self._line(f'"{name}": {text},')

    def _line(self, text: str) -> bytes:
        line = text.encode() + b"\n"
        self._whole.update(line)
        return line


def versions_of(flow: Flow) -> list[int]:
    """The versions of the template that the flow was pinned to, the oldest first."""
    moved = {version for each in flow.migrations for version in (each.from_version, each.to_version)}
    return sorted(moved | {flow.template_version})


def without_template(flow: Flow, known: Container[int]) -> list[str]:
    """What to say of the versions of the flow's template that are not known."""
    return [NO_TEMPLATE.format(version=each) for each in versions_of(flow) if each not in known]


def message_record(recorded: RecordedEvent, flow: Flow, contracts: Contracts) -> dict[str, Json]:
    """A message: where and when it was stored, what it says, and its bytes. `contracts` open its payload."""
    record: dict[str, Json] = {
        "sequence": str(recorded.sequence),
        "time": moment(recorded.time.ToDatetime(UTC)),
        "kind": KindName.Name(recorded.kind).removeprefix("KIND_") if recorded.kind in KindName.values() else "",
        "agent": recorded.agent,
        "type": recorded.type,
    }
    if recorded.void_reason:
        record["void"] = recorded.void_reason
    if not recorded.HasField("event"):
        return record
    return record | event_record(recorded, flow, contracts)


def recorded_of(record: Mapping[str, Any]) -> RecordedEvent:
    """The message of such a record, without what it says. Raises ValueError, KeyError or TypeError if it is none."""
    recorded = RecordedEvent(
        sequence=int(record["sequence"]),
        kind=KindName.Value(f"KIND_{record['kind']}") if record["kind"] else _OTHER_KIND,
        agent=record["agent"],
        type=record["type"],
        void_reason=record.get("void", ""),
    )
    recorded.time.FromDatetime(datetime.fromisoformat(record["time"]))
    return recorded


def event_record(recorded: RecordedEvent, flow: Flow, contracts: Contracts) -> dict[str, Json]:
    """What a message says that can be read: envelope and payload, as JSON, as bytes, and the digest of each."""
    envelope, data = Event(), recorded.event.data
    envelope.CopyFrom(recorded.event)
    envelope.ClearField("data")
    head = envelope.SerializeToString(deterministic=True)
    return {
        "subject": subject_of(recorded, flow),
        "envelope": PLAIN.to_json(envelope),
        "envelopeBytes": _base64(head),
        "envelopeSha256": sha256(head).hexdigest(),
        "payload": contracts.to_json(data),
        "payloadTypeUrl": data.type_url,
        "payloadBytes": _base64(data.value),
        "payloadSha256": sha256(data.value).hexdigest(),
    }


def subject_of(recorded: RecordedEvent, flow: Flow) -> str:
    """The subject on which the stream has a message."""
    kind = Kind[KindName.Name(recorded.kind).removeprefix("KIND_")]
    address = Address(flow.flow_type, flow.flow_id, kind, recorded.agent, recorded.event.event_id, recorded.type)
    return address.subject


def template_record(stored: StoredTemplate) -> dict[str, Json]:
    """A stored version: as JSON, as bytes, and its digest."""
    described: Mapping[str, Json] = PLAIN.to_json(stored.template)
    return {
        "name": stored.template.name,
        "version": stored.template.version,
        "digest": stored.digest,
        "putBy": stored.put_by,
        "template": dict(described),
        "templateBytes": _base64(stored.template.SerializeToString(deterministic=True)),
        "descriptors": _base64(stored.descriptors),
    }


def moment(time: datetime) -> str:
    """A time in UTC, to the microsecond."""
    return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def json_line(value: Json) -> str:
    """JSON on one line, in ASCII: nothing in it can control a terminal."""
    return json.dumps(value)


def _base64(data: bytes) -> str:
    return b64encode(data).decode()
