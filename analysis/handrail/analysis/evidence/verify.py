"""Checks evidence. Pure: it reads lines."""

from __future__ import annotations

import json
import re
from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from typing import Any, BinaryIO

from google.protobuf import any_pb2
from google.protobuf.message import DecodeError

from handrail.analysis.evidence.document import (
    FORMAT,
    PLAIN,
    UNREADABLE,
    json_line,
    message_record,
    recorded_of,
    template_record,
    without_template,
)
from handrail.mesh.conditions.largest import LARGEST_MESSAGE
from handrail.mesh.contracts import Contracts
from handrail.mesh.contracts.payload_json import Json
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import cut
from handrail.mesh.template import Template
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import check_agreement
from handrail.mesh.wire.subjects import parse
from handrail.v1.event_pb2 import Event
from handrail.v1.flow_service_pb2 import Flow
from handrail.v1.template_pb2 import FlowTemplate, StoredTemplate

LONGEST_LINE = 64 << 20
"""The most bytes of a line. A message of 1 MiB takes some 10."""

MOST_VALUES = 2 * LARGEST_MESSAGE + (1 << 16)
"""The most values of a line: each takes at least one byte of a message, and a list or object one more. Python takes up
to 200 bytes for each, so they are counted before the line is read as JSON."""

_MOST_BASE64 = LARGEST_MESSAGE * 4 // 3 + 8
"""The most characters of a message's bytes."""

_MARKS = (b",", b"[", b"{")
"""What stands before each value. In a text it counts, too: there it takes a byte of the message."""

_LAST = re.compile(rb'"sha256": "([0-9a-f]{64})"\}\n')
_NO_PARTS = ("export", "flow", "templates")
_OTHERWISE = "no export writes it so"
_UNTRUE = {
    "envelopeSha256": "the digest is not that of the envelope",
    "payloadSha256": "the digest is not that of the payload",
    "envelope": "the envelope is not what its bytes say",
    "payload": "the payload is not what its bytes say",
    "subject": "the subject is not that of the message",
}


class EvidenceError(Exception):
    """The file is not the evidence that was written. The text says where, and what is wrong."""


@dataclass(slots=True)
class Verified:
    """What evidence is about: the flow, who wrote it and when, and the SHA-256 of the file."""

    flow_id: str = ""
    flow_type: str = ""
    version: int = 0
    status: str = ""
    by: str = ""
    time: str = ""
    messages: int = 0
    sha256: str = ""
    withheld: list[str] = field(default_factory=list)


def verify(lines: Iterable[bytes]) -> Verified:
    """Checks a whole file, line by line, each with its end. Raises EvidenceError."""
    checking = _Checking(lines)
    try:
        return checking.run()
    except EvidenceError as error:
        raise EvidenceError(f"line {checking.number}: {error}") from None
    except HandrailError as error:
        raise EvidenceError(f"line {checking.number}: {cut(error.text)}") from None
    except (ValueError, KeyError, TypeError, AttributeError, DecodeError, RecursionError):
        raise EvidenceError(f"line {checking.number}: it is not what an export writes there") from None


class _Checking:
    """One file that is being read."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.number = 0
        self._lines = iter(lines)
        self._whole = sha256()
        self._file = sha256()
        self._parts: dict[str, object] = {}
        self._contracts: dict[int, Contracts] = {}
        self._digests: dict[str, tuple[str, list[str]]] = {}
        self._withheld: list[str] = []

    def run(self) -> Verified:
        """Checks all lines in their order."""
        self._require(self._next() == f'{{"format": "{FORMAT}",\n'.encode(), f"the file is not {FORMAT}")
        export, flow, templates = (self._part(name) for name in _NO_PARTS)
        found = Verified(
            flow_id=flow["flowId"],
            flow_type=flow["flowType"],
            version=flow.get("templateVersion", 0),
            status=flow.get("status", ""),
            by=export["by"],
            time=export["time"],
        )
        self._require(export["flowId"] == found.flow_id, "the export is of another flow")
        texts = (found.flow_id, found.flow_type, found.status, found.by, found.time)
        self._require(all(isinstance(each, str) for each in texts), _OTHERWISE)
        for each in templates:
            self._take_template(each, found.flow_type)
        self._take_approvals(flow)
        found.messages = self._messages(found, int(export["lastSequence"]))
        self._require(found.messages == flow.get("messageCount", 0), "messages of the flow are missing")
        found.withheld = self._part("withheld", is_counted=False)
        moved = Flow(template_version=found.version)
        for each in flow.get("migrations", []):
            moved.migrations.add(from_version=each.get("fromVersion", 0), to_version=each.get("toVersion", 0))
        self._withheld += without_template(moved, self._contracts)
        self._require(found.withheld == self._withheld, "it says of other things that they are withheld")
        self._require(self._part("manifest", is_counted=False) == self._parts, "the manifest is of other content")
        stated, counted = _LAST.fullmatch(line := self._line()), self._whole.hexdigest()
        self._require(stated is not None and stated[1].decode() == counted, "the file was changed after it was written")
        self._file.update(line)
        self._require(next(self._lines, b"") == b"", "something follows the end")
        found.sha256 = self._file.hexdigest()
        return found

    def _messages(self, found: Verified, wanted: int) -> int:
        """Checks the messages; returns how many there are."""
        self._require(self._next() == b'"messages": [\n', "the messages begin elsewhere")
        digest, count, first, last, version = sha256(), 0, 0, 0, found.version
        while (line := self._next()) != b"],\n":
            text = line[1:] if count else line
            self._require(not count or line.startswith(b","), "a message is not separated from the one before it")
            record = json.loads(text)
            sequence = int(record["sequence"])
            self._require(last < sequence <= wanted, "the messages are not in the order of the stream")
            written = self._take_message(record, found, version)
            self._require(text == json_line(written).encode() + b"\n", _OTHERWISE)
            digest.update(text)
            count, first, last = count + 1, first or sequence, sequence
        self._require(last == wanted, "the last message of the flow is missing")
        self._require(not self._digests, f"the proposal {next(iter(self._digests), '')} is missing")
        self._parts["messages"] = {
            "count": count,
            "firstSequence": str(first),
            "lastSequence": str(last),
            "sha256": digest.hexdigest(),
        }
        return count

    def _take_message(self, record: Mapping[str, Any], found: Verified, version: int) -> dict[str, Json]:
        """Checks a message; returns it as an export writes it."""
        recorded, flow = recorded_of(record), Flow(flow_type=found.flow_type, flow_id=found.flow_id)
        if "envelopeBytes" not in record:
            self._withheld.append(f"message {recorded.sequence}: {UNREADABLE}")
            return message_record(recorded, flow, PLAIN)
        size = len(record["envelopeBytes"]) + len(record["payloadBytes"])
        self._require(size <= _MOST_BASE64, f"the message has more than {LARGEST_MESSAGE} bytes, which no stream takes")
        head = b64decode(record["envelopeBytes"], validate=True)
        payload = b64decode(record["payloadBytes"], validate=True)
        envelope = Event.FromString(head)
        contracts = self._contracts.get(envelope.template_version) or self._contracts.get(version, PLAIN)
        data = any_pb2.Any(type_url=record["payloadTypeUrl"], value=payload)
        recorded.event.CopyFrom(envelope)
        recorded.event.data.CopyFrom(data)
        written = message_record(recorded, flow, contracts)
        for key, why in _UNTRUE.items():
            self._require(record[key] == written[key], why)
        check_agreement(parse(str(written["subject"])), recorded.event)
        self._take_proposal(record, envelope, data)
        return written

    def _take_template(self, record: Mapping[str, Any], flow_type: str) -> None:
        """Checks that a version has the digest under which it was stored."""
        proto = FlowTemplate.FromString(b64decode(record["templateBytes"], validate=True))
        contracts = Contracts.from_descriptor_set(b64decode(record["descriptors"], validate=True))
        self._require(record["template"] == PLAIN.to_json(proto), "the template is not what its bytes say")
        is_other = proto.name != flow_type or proto.version in self._contracts
        self._require(not is_other, "the template is of another flow type, or there twice")
        compiled = Template.compile(proto, contracts)
        self._require(compiled.digest == record["digest"], "the digest is not that of the template")
        stored = StoredTemplate(template=proto, digest=record["digest"], put_by=record["putBy"])
        stored.descriptors = b64decode(record["descriptors"])
        self._require(record == template_record(stored), _OTHERWISE)
        self._contracts[proto.version] = contracts

    def _take_approvals(self, flow: Mapping[str, Any]) -> None:
        """Remembers which digest people voted on, by the id of the proposal, and the gates that asked."""
        for each in flow.get("approvals", []):
            event_id = str(each["approvalId"]).rpartition(".")[2]
            gates = [str(gate["gate"]) for gate in each.get("gates", [])]
            self._require(event_id not in self._digests, "an approval is there twice")
            self._digests[event_id] = (str(each["digest"]), gates)

    def _take_proposal(self, record: Mapping[str, Any], envelope: Event, data: any_pb2.Any) -> None:
        """Checks that what people voted on is what was proposed."""
        if record["kind"] != "PROPOSAL" or "void" in record or envelope.event_id not in self._digests:
            return
        digest, gates = self._digests.pop(envelope.event_id)
        shown = ids.approval_digest(
            flow_id=envelope.flow_id,
            event_id=envelope.event_id,
            gates=gates,
            message_type=record["type"],
            data=data.value,
        )
        self._require(digest == shown, "people voted on something else than this proposal")

    def _part(self, name: str, *, is_counted: bool = True) -> Any:
        """A line with a part of the document, which has to have its name."""
        text = self._next().decode("ascii")
        start, end = f'"{name}": ', ",\n"
        self._require(text.startswith(start) and text.endswith(end), f'here has to be "{name}"')
        content = text[len(start) : -len(end)]
        if is_counted:
            self._parts[name] = {"sha256": sha256(content.encode()).hexdigest()}
        value = json.loads(content)
        self._require(json_line(value) == content, _OTHERWISE)
        return value

    def _next(self) -> bytes:
        """The next line but the last one."""
        line = self._line()
        self._whole.update(line)
        self._file.update(line)
        return line

    def _line(self) -> bytes:
        self.number += 1
        line = next(self._lines, b"")
        self._require(len(line) <= LONGEST_LINE, f"it is longer than {LONGEST_LINE} bytes, and no export writes that")
        self._require(line.endswith(b"\n"), "the file ends early")
        values = sum(map(line.count, _MARKS))
        self._require(values <= MOST_VALUES, f"it has more than {MOST_VALUES} values, and no export writes that")
        return line

    @staticmethod
    def _require(holds: bool, problem: str) -> None:
        if not holds:
            raise EvidenceError(problem)


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; of one that is too long, as much as tells so."""
    return iter(partial(file.readline, LONGEST_LINE + 1), b"")
