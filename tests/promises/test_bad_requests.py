"""Bad input from callers: over gRPC, in the SDK, on the command line. Each gets a clear error with a reason from the
enum, nothing is stored for it, and all goes on.

Nonsense in each field of each request is in test_p5_contracts.py, votes that may not be given in test_p6_gates.py, the
command's exit codes in tests/integration/command/test_command_exits.py.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import failure_pb2 as failure
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.flow_service_pb2 import PublishEventRequest, StartFlowRequest
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from payments.v1.payments_pb2 import ChargebackReceived, SmallRefundGranted
from tests.promises.bad_messages import SAMPLES
from tests.promises.conftest import Build
from tests.promises.team import LARGE, REFUND, Team, claim, money
from tests.support.api import refused
from tests.support.dev import handrail
from tests.support.house import House
from tests.support.people import People

Command = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]

ODD = ["", "re.fund", "re fund", "refund\n", "*", ">", "ü", "x" * 10_000]
"""What is no name and no id."""


@pytest.fixture
async def people(house: House) -> AsyncIterator[People]:
    """People, in a house where nobody works."""
    async with house.coordinator() as people:
        yield people


# Flow types and versions that are not there.


async def test_flow_types_and_versions_that_are_not_there_are_refused(house: House, people: People) -> None:
    start = StartFlowRequest(flow_type="loan", data=pack(claim()))
    refusal = await refused(people.flows.StartFlow(start, metadata=people.by("olga")))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "FLOW_TYPE_NOT_FOUND")
    assert "active are: refund" in refusal.status.message

    service = TemplateServiceStub(people.api.channel)
    for name, version in (("refund", 99), ("refund", 2**32 - 1), ("loan", 1)):
        activate = templates.ActivateTemplateRequest(name=name, version=version, reason="a test")
        refusal = await refused(service.ActivateTemplate(activate, metadata=people.by("olga")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TEMPLATE_NOT_FOUND")
    assert await house.mesh.messages() == 0
    assert await house.mesh.messages("TEMPLATE") == 2


async def test_a_message_of_a_flow_type_that_nobody_knows_is_kept_in_quarantine(house: House, people: People) -> None:
    flow_id, event_id = "a" * 32, ids.start_id("a" * 32)
    subject = f"flow.loan.{flow_id}.event.desk.{event_id}.library.v1.LoanRequested"
    await house.mesh.bus.publish(subject, b"no agent of ours may publish it, an old one of theirs might")
    await house.until_quiet()
    [kept] = await people.quarantined()
    assert kept.message.subject == subject
    assert kept.message.body.startswith(b"no agent of ours")


async def test_an_agent_begins_no_flow_of_a_type_that_is_none(house: House) -> None:
    team = Team()
    async with house.working([team.detection]):
        for name in ODD:
            with pytest.raises(HandrailError, match="active are: refund") as refusal:
                await team.detection.start_flow(name, claim(), key="the-key")
            assert refusal.value.reason_name == "FLOW_TYPE_NOT_FOUND"
        started = await team.detection.start_flow("refund", claim(), key="the-key")
        assert not started.already_started


async def test_a_business_key_may_be_any_text(house: House) -> None:
    """It is hashed: no dot, space or length of it reaches a subject."""
    team = Team()
    async with house.working([team.detection]):
        keys = [key for key in ODD if key]
        flows = [(await team.detection.start_flow("refund", claim(), key=key)).flow_id for key in keys]
        again = [(await team.detection.start_flow("refund", claim(), key=key)).flow_id for key in keys]
    assert again == flows
    assert len(set(flows)) == len(keys) == await house.mesh.messages()


async def test_an_agent_begins_no_flow_with_what_the_broker_would_not_take(house: House) -> None:
    team = Team()
    async with house.working([team.detection]):
        large = claim()
        large.reason = "x" * 2_000_000
        with pytest.raises(HandrailError) as refusal:
            await team.detection.start_flow("refund", large)
        assert refusal.value.reason_name == "CONTRACT_VIOLATION"
        with pytest.raises(HandrailError) as refusal:
            await team.detection.start_flow("refund", SmallRefundGranted(amount=money(5)))
        assert refusal.value.reason_name == "UNKNOWN_MESSAGE_TYPE"
        assert "it starts with payments.v1.ChargebackReceived" in refusal.value.text
    assert await house.mesh.messages() == 0


# Outcomes of agents in any language.


def outcome(flow_id: str) -> PublishEventRequest:
    """What enrichment owes."""
    return PublishEventRequest(
        flow_id=flow_id,
        flow_type="refund",
        step="enrich",
        root=ids.start_id(flow_id),
        attempt=1,
        output_total=1,
        data=pack(SAMPLES["payments.v1.ChargebackEnriched"]),
    )


WRONG_OUTCOMES: dict[str, tuple[dict[str, object], str]] = {
    "of a step that is not there": ({"step": "dance"}, "STEP_NOT_FOUND"),
    "of another agent's step": ({"step": "pay"}, "WRONG_AGENT"),
    "of another type": ({"data": pack(SAMPLES["payments.v1.RefundPaid"])}, "WRONG_AGENT"),
    "of no flow": ({"flow_id": "f" * 32}, "FLOW_NOT_FOUND"),
    "of another flow type": ({"flow_type": "loan"}, "FLOW_NOT_FOUND"),
    "that nothing asked for": ({"root": "e" * 32}, "WRONG_STATUS"),
    "of a run that is not there": ({"run": 7}, "WRONG_STATUS"),
    "beyond the number announced": ({"output_index": 3}, "WRONG_STATUS"),
    "of an undo that nobody ordered": (
        {"undo_of": "e" * 32, "data": pack(failure.StepCompleted())},
        "WRONG_STATUS",
    ),
    "that failed in an attempt that is not there": (
        {"attempt": 9, "data": pack(failure.StepFailed(error_class="X", text="x", retryable=True))},
        "WRONG_STATUS",
    ),
    "whose undo failed, of what was not done": (
        {"data": pack(failure.StepFailed(error_class="X", text="x", undo_of="e" * 32))},
        "WRONG_AGENT",
    ),
}


async def test_an_outcome_that_would_not_count_is_refused(house: House, people: People) -> None:
    flow_id, by_agent = await house.start(claim()), people.by("enrichment", agent="enrichment")
    for what, (changes, reason) in WRONG_OUTCOMES.items():
        request = outcome(flow_id)
        for field, value in changes.items():
            if field == "data":
                request.data.CopyFrom(value)  # type: ignore[arg-type]
            else:
                setattr(request, field, value)
        refusal = await refused(people.flows.PublishEvent(request, metadata=by_agent))
        assert (refusal.reason, bool(refusal.status.message)) == (reason, True), what
    assert await house.mesh.messages() == 1
    assert not (await people.flows.PublishEvent(outcome(flow_id), metadata=by_agent)).already_stored


async def test_p5_more_outputs_than_a_step_may_answer_with_are_refused(build: Build) -> None:
    house = await build(("    on_failure: ESCALATE\n", "    on_failure: ESCALATE\n    max_outputs: 1\n"))
    async with house.coordinator() as people:
        flow_id, by_agent = await house.start(claim()), people.by("enrichment", agent="enrichment")
        request = outcome(flow_id)
        request.output_total = 2
        refusal = await refused(people.flows.PublishEvent(request, metadata=by_agent))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
        assert "answers with 2 messages; at most 1 are allowed" in refusal.status.message
        assert await house.mesh.messages() == 1
        assert not (await people.flows.PublishEvent(outcome(flow_id), metadata=by_agent)).already_stored


async def test_an_outcome_is_taken_once_and_another_answer_is_refused(house: House, people: People) -> None:
    request, by_agent = outcome(await house.start(claim())), people.by("enrichment", agent="enrichment")
    published = await people.flows.PublishEvent(request, metadata=by_agent)
    again = await people.flows.PublishEvent(request, metadata=by_agent)
    assert (published.already_stored, again.already_stored) == (False, True)
    assert again.sequence == published.sequence
    request.data.value += b"\x2a\x11other@example.com"
    refusal = await refused(people.flows.PublishEvent(request, metadata=by_agent))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DIFFERENT_ANSWER")
    assert await house.mesh.messages() == 2


# Votes.


async def test_a_vote_that_comes_too_late_or_for_something_else_is_refused_and_in_the_log(
    build: Build, caplog: pytest.LogCaptureFixture
) -> None:
    house, team = await build(("expires_after: 14400s", "expires_after: 1s")), Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        approval = await people.approval(flow_id)
        wrong = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest="0" * 64)
        refusal = await refused(people.approvals.ApproveProposal(wrong, metadata=people.by("anna")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "DIGEST_MISMATCH")
        await people.until_status(flow_id, "COMPLETED")
        late = approvals.ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        refusal = await refused(people.approvals.ApproveProposal(late, metadata=people.by("ben")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "APPROVAL_CLOSED")
        assert not [event for event in await people.events(flow_id) if event.type.endswith("ApprovalGiven")]
        logged = [text for text in caplog.messages if text.startswith("refused: ")]
        assert len(logged) == 2
        assert "anna asked for ApproveProposal" in logged[0]
        assert "(APPROVAL_CLOSED)" in logged[1]
    assert team.told == [flow_id]
    assert team.book.calls == []


# The command.


@pytest.fixture
def command(people: People) -> Command:
    """Runs the command as olga, in a thread beside the coordinator."""
    token = people.api.token("olga", *people.ROLES["olga"])
    env = {"HANDRAIL_ADDRESS": people.api.address, "HANDRAIL_TOKEN": token}
    return lambda *arguments: asyncio.to_thread(handrail, *arguments, env=env)


async def test_the_command_refuses_what_is_no_id_in_one_line(command: Command) -> None:
    for odd in filter(None, ODD):
        for arguments in (
            ("flow", "show", odd),
            ("flow", "watch", odd),
            ("flow", "cancel", odd, "--reason", "a test"),
            ("flow", "retry", "f" * 32, odd, "--reason", "a test"),
            ("approval", "approve", odd),
            ("template", "show", odd),
            ("flow", "start", odd, "--data", "{}"),
        ):
            done = await command(*arguments)
            assert done.stdout == ""
            [line] = done.stderr.splitlines()
            assert line.startswith("handrail: ")
            if done.returncode != 2:  # the command itself tells what can't be a name
                assert (done.returncode, line.endswith("(CONTRACT_VIOLATION)")) == (1, True), arguments[:3]
            assert len(line) < 1_500


NO_TEMPLATES = {
    "no YAML": ("name: [", "line 1, column 8: "),
    "a list": ("- name: refund", "(MALFORMED)"),
    "a text": ("refund", "(MALFORMED)"),
    "nothing": ("", "this file contains no template (MALFORMED)"),
    "another document": ("apiVersion: v1\nkind: Pod\n", 'there is no field "apiVersion"'),
    "a bomb": ("a: &a [1, 1]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(30)), "anchors and aliases"),
    "a field that is not there": (REFUND + "retires: 3\n", 'there is no field "retires"'),
    "a step twice": (REFUND.replace("name: grant", "name: pay"), "HR004"),
    "a type that is not there": (REFUND.replace("payments.v1.RefundPaid", "payments.v1.RefundPayed"), "HR002"),
    "a gate that reads what is not there": (REFUND.replace("event.amount", "event.amuont"), "HR027"),
    "a version that is there with other content": (REFUND.replace("86400s", "5s"), "(TEMPLATE_EXISTS)"),
}


async def test_the_command_stores_no_template_that_is_none_or_fails_the_check(
    house: House, command: Command, tmp_path: Path
) -> None:
    file, contracts = tmp_path / "template.yaml", tmp_path / "contracts.binpb"
    contracts.write_bytes(house.template.descriptor_set)
    for what, (text, complaint) in NO_TEMPLATES.items():
        file.write_text(text)
        done = await command("template", "put", str(file), "--contracts", str(contracts), "--activate")
        assert done.returncode == 1, what
        assert done.stderr.splitlines()[-1].startswith("handrail: ")
        assert complaint in done.stdout + done.stderr
    assert await house.mesh.messages("TEMPLATE") == 2, "as before"


async def test_what_can_not_be_shown_as_json_is_shown_with_its_bytes(people: People, command: Command) -> None:
    event: ChargebackReceived = claim()
    event.received_time.CopyFrom(Timestamp(seconds=10**18))
    flow_id = (await people.start(event)).flow_id
    done = await command("flow", "events", flow_id, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["events"][0]["event"]["data"]["value"]
    assert (await command("flow", "show", flow_id)).returncode == 0
