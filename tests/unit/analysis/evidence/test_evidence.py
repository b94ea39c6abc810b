"""Evidence says all that is recorded of a flow, and whoever changes it is noticed."""

from __future__ import annotations

import io
import json
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from typing import Any

import pytest

from handrail.analysis.evidence import EvidenceError, Export, Writer, lines_of, verify, versions_of
from handrail.analysis.evidence.verify import LONGEST_LINE, MOST_VALUES
from handrail.coordinator.api.views import event_view, flow_view
from handrail.mesh.wire.subjects import Kind
from handrail.v1.event_pb2 import RecordedEvent
from handrail.v1.flow_service_pb2 import Flow, FlowMigration
from tests.support import flows
from tests.support.simulation import Simulation

NOON = datetime(2026, 11, 28, 12, tzinfo=UTC)
BY = Export("vera", NOON, "coordinator.example.com:7070")
TEMPLATE = flows.template(gated=True)


@cache
def recorded() -> tuple[Flow, tuple[RecordedEvent, ...]]:
    """A flow that a person approved, and its messages, one of which does not count."""
    simulation = Simulation(TEMPLATE)
    simulation.say(simulation.start(flows.received(), agent="detection"))
    (run,) = simulation.flow.runs.values()
    simulation.say(simulation.outcome(run, flows.enrichment()))
    (proposal,) = simulation.flow.proposals.values()
    simulation.say(simulation.outcome(run, flows.enrichment(), index=1, total=2, kind=Kind.EVENT))
    simulation.say(simulation.vote(proposal, "anna", ["finance"]))
    events = [event_view(each, simulation.flow.void.get(each.sequence)) for each in simulation.history]
    assert any(each.void_reason for each in events)
    return flow_view(simulation.flow), tuple(events)


def written(*events: RecordedEvent, flow: Flow | None = None) -> bytes:
    """The evidence of the flow, whose messages come in two pages."""
    story, all_events = recorded()
    writer = Writer(flow or story, [flows.stored(TEMPLATE)], BY)
    some = events or all_events
    lines = [*writer.begin(), *writer.messages(some[:2]), *writer.messages(some[2:])]
    assert writer.is_whole
    return b"".join([*lines, *writer.end()])


def checked(file: bytes) -> Any:
    return verify(lines_of(io.BytesIO(file)))


def changed(change: Callable[[dict[str, Any]], object]) -> bytes:
    """Evidence that somebody changed who knows how it is made: every digest of content and file is made anew."""
    document = json.loads(written())
    change(document)
    parts = ("export", "flow", "templates")
    messages = [json.dumps(each) for each in document["messages"]]
    manifest = {name: {"sha256": sha256(json.dumps(document[name]).encode()).hexdigest()} for name in parts}
    manifest["messages"] = document["manifest"]["messages"] | {
        "count": len(messages),
        "sha256": sha256("".join(f"{each}\n" for each in messages).encode()).hexdigest(),
    }
    lines = [
        f'{{"format": "{document["format"]}",',
        *(f'"{name}": {json.dumps(document[name])},' for name in parts),
        '"messages": [',
        *(f",{each}" if number else each for number, each in enumerate(messages)),
        "],",
        f'"withheld": {json.dumps(document["withheld"])},',
        f'"manifest": {json.dumps(manifest)},',
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    return content + f'"sha256": "{sha256(content).hexdigest()}"}}\n'.encode()


def test_evidence_says_what_it_is_about() -> None:
    file = written()
    found = checked(file)
    flow, events = recorded()
    assert (found.flow_id, found.flow_type, found.version) == (flow.flow_id, "refund", 1)
    assert (found.status, found.by, found.time) == ("FLOW_STATUS_RUNNING", "vera", "2026-11-28T12:00:00.000000Z")
    assert (found.messages, found.withheld) == (len(events), [])
    assert found.sha256 == sha256(file).hexdigest()


def test_evidence_is_one_document_of_json_whose_last_line_is_the_digest_of_all_others() -> None:
    file = written()
    document = json.loads(file)
    assert file.isascii()
    assert document["sha256"] == sha256(b"".join(file.splitlines(keepends=True)[:-1])).hexdigest()
    assert document["flow"]["approvals"][0]["votes"][0]["voter"] == "anna"
    assert document["templates"][0]["digest"] == TEMPLATE.digest
    first = document["messages"][0]
    assert first["payload"]["chargebackId"] == "cb-1"
    assert first[
        "subject"
    ] == f"flow.refund.{document['flow']['flowId']}.event.detection.{first['envelope']['eventId']}." + (
        "payments.v1.ChargebackReceived"
    )
    assert [each["sequence"] for each in document["messages"] if "void" in each]


def test_evidence_of_which_a_byte_was_flipped_is_refused() -> None:
    file = written()
    for place in (*range(0, len(file), 211), *range(len(file) - 80, len(file))):
        broken = bytearray(file)
        broken[place] ^= 1
        with pytest.raises(EvidenceError):
            checked(bytes(broken))


@pytest.mark.parametrize(
    "cut", [lambda file: file[:-1], lambda file: file + b"\n", lambda file: b"", lambda file: file[: len(file) // 2]]
)
def test_evidence_that_was_cut_or_went_on_is_refused(cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(EvidenceError):
        checked(cut(written()))


def test_what_was_changed_with_its_digests_is_refused_where_it_contradicts_itself() -> None:
    assert checked(changed(lambda document: None)).messages == len(recorded()[1])

    def last_vote_gone(document: dict[str, Any]) -> None:
        del document["messages"][-1]

    def proposal_gone(document: dict[str, Any]) -> None:
        document["messages"] = [each for each in document["messages"] if each["kind"] != "PROPOSAL"]

    for change, why in (
        (last_vote_gone, "the last message of the flow is missing"),
        (proposal_gone, "is missing"),
        (lambda d: d["messages"].pop(0), "messages of the flow are missing"),
        (lambda d: d["messages"].reverse(), "not in the order of the stream"),
        (lambda d: d["messages"][0]["payload"].update(chargebackId="cb-2"), "the payload is not what its bytes say"),
        (lambda d: d["messages"][0]["envelope"].update(source="ledger"), "the envelope is not what its bytes say"),
        (lambda d: d["messages"][0].update(agent="ledger"), "the subject is not that of the message"),
        (lambda d: d["messages"][0].update(payloadBytes=""), "the digest is not that of the payload"),
        (lambda d: d["messages"][0].update(envelopeBytes="!"), "not what an export writes there"),
        (lambda d: d["templates"][0].update(digest="0" * 64), "the digest is not that of the template"),
        (lambda d: d["templates"][0].update(template={}), "the template is not what its bytes say"),
        (lambda d: d["flow"]["approvals"][0].update(digest="0" * 64), "people voted on something else"),
        (lambda d: d["flow"].update(flowId="0" * 32), "the export is of another flow"),
        (lambda d: d.update(export=[]), "not what an export writes there"),
        (lambda d: d.update(format="handrail-evidence/2"), "the file is not handrail-evidence/1"),
        (lambda d: d["templates"].append(d["templates"][0]), "there twice"),
        (lambda d: d["flow"]["approvals"].append(d["flow"]["approvals"][0]), "an approval is there twice"),
    ):
        with pytest.raises(EvidenceError, match=why):
            checked(changed(change))


def without_bytes(message: dict[str, Any]) -> None:
    message["payload"]["chargebackId"] = "cb-2"
    del message["envelopeBytes"]


def without_content(message: dict[str, Any]) -> None:
    for key in message.keys() - {"sequence", "time", "kind", "agent", "type"}:
        del message[key]


def of_another_type(message: dict[str, Any]) -> None:
    message["payloadTypeUrl"] = message["payload"]["@type"] = "type.googleapis.com/payments.v1.RefundIssued"


@pytest.mark.parametrize(
    "change, why",
    [
        (lambda d: without_bytes(d["messages"][0]), "no export writes it so"),
        (lambda d: without_content(d["messages"][0]), "other things that they are withheld"),
        (lambda d: of_another_type(d["messages"][0]), "is not what its bytes say|the body says data type"),
        (lambda d: d["messages"][0].update(note="approved by the board"), "no export writes it so"),
        (lambda d: d["messages"][0].update(time="2026-11-28"), "no export writes it so"),
        (lambda d: d["messages"][0].update(sequence="+" + d["messages"][0]["sequence"]), "no export writes it so"),
        (lambda d: d["withheld"].append("nothing of importance"), "other things that they are withheld"),
        (lambda d: d.update(withheld=[7]), "other things that they are withheld"),
        (lambda d: d["templates"][0].update(putBy={}), "not what an export writes there"),
        (lambda d: d["templates"][0].update(note="as the board decided"), "no export writes it so"),
        (lambda d: d["flow"].update(status=7), "no export writes it so"),
        (lambda d: d["export"].update(by=["vera"]), "no export writes it so"),
    ],
)
def test_what_no_export_writes_is_refused_whatever_its_digests_say(
    change: Callable[[dict[str, Any]], object], why: str
) -> None:
    with pytest.raises(EvidenceError, match=why):
        checked(changed(change))


LARGE = {
    "a long line": (b'"' + b"x" * LONGEST_LINE + b'"', "it is longer than 67108864 bytes"),
    "many lists": (b"[" + b"[]," * MOST_VALUES + b"[]]", "values, and no export writes that"),
    "many objects": (b"[" + b"{}," * MOST_VALUES + b"{}]", "values, and no export writes that"),
    "many numbers": (b"[" + b"0," * MOST_VALUES + b"0]", "values, and no export writes that"),
    "lists in lists": (b"[" * MOST_VALUES + b"]" * MOST_VALUES, "values, and no export writes that"),
}


@pytest.mark.parametrize("line", [3, 4, 7, 14])
@pytest.mark.parametrize("case", LARGE)
def test_a_line_that_no_export_writes_is_refused_before_it_takes_memory(case: str, line: int) -> None:
    content, why = LARGE[case]
    lines = written().splitlines(keepends=True)
    assert len(lines) >= line
    lines[line - 1] = lines[line - 1].rstrip(b"\n") + content + b"\n"
    file = io.BytesIO(b"".join(lines))
    del lines
    tracemalloc.start()
    try:
        with pytest.raises(EvidenceError, match=f"^line {line}: .*{why}"):
            verify(lines_of(file))
        assert tracemalloc.get_traced_memory()[1] < LONGEST_LINE + (32 << 20)
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("part", ["envelopeBytes", "payloadBytes"])
def test_a_message_of_more_bytes_than_a_stream_takes_is_refused(part: str) -> None:
    with pytest.raises(EvidenceError, match=r"line 7: the message has more than 1048576 bytes"):
        checked(changed(lambda d: d["messages"][1].update({part: "CgAKAAoA" * 180_000})))


def test_what_is_there_twice_under_one_name_is_refused() -> None:
    # Readers differ in which of the two they show.
    lines = written().splitlines(keepends=True)
    flow = lines[2].removeprefix(b'"flow": ').removesuffix(b",\n")
    twice = flow.removesuffix(b"}") + b', "status": "FLOW_STATUS_COMPLETED"}'
    content = b"".join(lines[:-1]).replace(flow, twice)
    before, after = (sha256(each).hexdigest().encode() for each in (flow, twice))
    content = content.replace(before, after)
    with pytest.raises(EvidenceError, match="no export writes it so"):
        checked(content + b'"sha256": "' + sha256(content).hexdigest().encode() + b'"}\n')


def test_what_came_after_the_flow_was_read_is_left_out_and_what_is_missing_is_noticed() -> None:
    flow, events = recorded()
    earlier = Flow()
    earlier.CopyFrom(flow)
    earlier.last_sequence, earlier.message_count = events[1].sequence, 2
    assert checked(written(flow=earlier)).messages == 2
    writer = Writer(flow, [], BY)
    list(writer.messages(events[:2]))
    assert not writer.is_whole


def test_what_can_not_be_shown_is_said() -> None:
    flow, events = recorded()
    odd = RecordedEvent(sequence=events[-1].sequence, void_reason="it is no event", agent="\x1b[31m")
    writer = Writer(flow, [], BY)
    lines = [*writer.begin(), *writer.messages([*events[:-1], odd]), *writer.end()]
    file = b"".join(lines)
    assert b"\x1b" not in file
    assert json.loads(file)["messages"][0]["payload"]["@type"].endswith("ChargebackReceived")
    withheld = checked(file).withheld
    assert withheld[0].startswith(f"message {odd.sequence}: it can't be read as an event")
    assert withheld[1].startswith("version 1 of the template can't be read")


def test_the_versions_of_a_flow_are_those_that_it_ran_on() -> None:
    moves = [FlowMigration(from_version=1, to_version=3), FlowMigration(from_version=3, to_version=2)]
    assert versions_of(Flow(template_version=2, migrations=moves)) == [1, 2, 3]
    assert versions_of(Flow(template_version=7)) == [7]
