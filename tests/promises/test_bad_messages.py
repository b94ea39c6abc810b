"""Bad input over the broker: what an agent may publish, and what is wrong with it, goes into quarantine with its bytes;
nobody stops, no flow is harmed, nothing gets lost.

What agents themselves do with such messages is in tests/unit/agents/test_hostile_messages.py; what the broker does not
let them publish in tests/integration/test_permissions.py.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from handrail.mesh import permissions
from handrail.mesh.bus.publish import ROOM
from handrail.mesh.errors import HandrailError, TooLarge
from handrail.mesh.permissions import User
from handrail.mesh.permissions.accounts import AGENTS
from handrail.mesh.streams import FLOW
from handrail.mesh.wire import ids
from handrail.mesh.wire.subjects import key_subject
from handrail.v1 import approval_service_pb2 as approvals
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined
from tests.promises.bad_messages import Bad, Forger, writable
from tests.promises.team import LARGE, Team, claim
from tests.support.house import House
from tests.support.people import People, name_of
from tests.support.waiting import until


def agents_of(house: House) -> list[User]:
    """The agents as the broker knows them: what they may publish is in their permissions."""
    users = [user for user in permissions.users([house.template.proto]) if user.group == AGENTS]
    assert len(users) == 6
    return users


async def ends_well(people: People, flow_id: str) -> None:
    """A large refund gets its two approvals and completes."""
    approval = await people.approval(flow_id)
    for name in ("anna", "ben"):
        await people.approve(approval, by=name)
    await people.until_status(flow_id, "COMPLETED")


async def kept_by_coordinator(people: People) -> dict[tuple[str, str], Quarantined]:
    """What the coordinator has put into quarantine, by subject and reason."""
    found = [each.message for each in await people.quarantined() if each.message.reporter == "coordinator"]
    return {(each.subject, ErrorReason.Name(each.reason).removeprefix("ERROR_REASON_")): each for each in found}


async def body_of(house: House, kept: Quarantined, *, size: int) -> bytes:
    """The bytes that were kept. A message of the largest size the FLOW stream keeps: with a reason around it, it is
    larger than the broker takes."""
    if size < house.mesh.bus.connection.max_payload:
        return kept.body
    assert f"its bytes are in the FLOW stream at {kept.stream_sequence}" in kept.detail
    stored = await house.mesh.bus.by_sequence(FLOW, kept.stream_sequence)
    assert stored is not None
    return stored.body


async def test_p5_every_bad_message_on_every_subject_of_an_agent_is_kept_in_quarantine(house: House) -> None:
    team, bad, attacked = Team(), list[Bad](), list[str]()
    await house.deliver_again_soon()  # an empty message can take others with it on their way across accounts
    async with house.coordinator() as people, house.working(team.agents):
        forger = Forger(house.template, house.mesh.bus.connection.max_payload - ROOM)
        for user in agents_of(house):
            bus = await house.connect(user.name)
            flow_id = await house.start(claim(user.name, units=LARGE))
            await people.approval(flow_id)
            mine = [each for what in writable(user) for each in forger.bad(what, flow_id)]
            assert mine, f"agent {user.name} writes nothing"
            await asyncio.gather(*(bus.publish(each.subject, each.body) for each in mine))
            attacked.append(flow_id)
            bad += mine
        await house.until_quiet()

        kept = await kept_by_coordinator(people)
        missing = [each.label for each in bad if (each.subject, each.reason) not in kept]
        assert missing == [], f"of {len(bad)}; there are {Counter(reason for _, reason in kept)}"
        for each in bad:
            message = kept[each.subject, each.reason]
            assert message.detail
            assert await body_of(house, message, size=len(each.body)) == each.body, each.label

        listed = await people.flows.ListFlows(
            flows.ListFlowsRequest(scan=True, page_size=500), metadata=people.by("vera")
        )
        # What began in a version that nobody stored is listed without a status.
        assert {flow.flow_id for flow in listed.flows if flow.status} == set(attacked)
        asked = await people.approvals.ListApprovals(
            approvals.ListApprovalsRequest(scan=True), metadata=people.by("vera")
        )
        assert {approval.flow_id for approval in asked.approvals} == set(attacked)
        attacked.append(await house.start(claim("afterwards", units=LARGE)))
        for flow_id in attacked:
            await ends_well(people, flow_id)
    assert sorted(team.told) == sorted(attacked)


async def test_p5_two_bad_messages_under_one_id_are_both_kept(house: House) -> None:
    """Neither the same event id nor the same odd token makes the second one disappear."""
    async with house.coordinator() as people:
        flow_id = await house.start(claim())
        refunds = await house.connect("refunds")
        event_id = ids.outcome_id(flow_id, "grant", "c" * 32, 0, 0)
        small = f"flow.refund.{flow_id}.event.refunds.{event_id}.payments.v1.SmallRefundGranted"
        large = f"flow.refund.{flow_id}.proposal.refunds.{event_id}.payments.v1.LargeRefundGranted"
        odd = [
            f"flow.refund.{flow_id}.failure.refunds.{token}.handrail.v1.StepFailed" for token in ("ä" * 32, "ö" * 32)
        ]
        bodies = {small: b"\xff1", large: b"\xff2", odd[0]: b"\xff3", odd[1]: b"\xff4"}
        for subject, body in bodies.items():
            await refunds.publish(subject, body)
        await house.until_quiet()
        found = await kept_by_coordinator(people)
        assert {subject: message.body for (subject, _), message in found.items()} == bodies


@pytest.mark.parametrize("event_id", ["nonsense", "*", "x" * 3000])
async def test_p7_a_flow_is_found_whatever_its_newest_message_is_called(house: House, event_id: str) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        await people.approval(flow_id)
        ledger = await house.connect("ledger")
        await ledger.publish(f"flow.refund.{flow_id}.event.ledger.{event_id}.payments.v1.RefundPaid", b"odd")
        flow = await people.flow(flow_id)
        assert name_of(flow.status) == "WAITING_APPROVAL"
        await house.until_quiet()
        *read, odd = await people.events(flow_id)
        assert len(read) == 4
        assert odd.void_reason, "it is shown, and can't be read"
        assert not odd.HasField("event")
        assert len(await kept_by_coordinator(people)) == 1
        await ends_well(people, flow_id)


async def test_p7_what_bears_the_id_of_a_flow_or_of_an_approval_elsewhere_hides_neither(house: House) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim(units=LARGE))
        approval = await people.approval(flow_id)
        refunds = await house.connect("refunds")
        proposal_id = approval.approval_id.rpartition(".")[2]
        elsewhere = f"flow.refund.{'a' * 32}.proposal.refunds.{proposal_id}.payments.v1.LargeRefundGranted"
        await refunds.publish(elsewhere, b"odd")
        # An agent of another flow type that takes its flows for those of this one.
        await house.mesh.bus.publish(f"flow.loan.{flow_id}.event.desk.{'b' * 32}.library.v1.LoanGranted", b"odd")
        assert (await people.flow(flow_id)).flow_type == "refund"
        await ends_well(people, flow_id)


async def test_what_agents_may_write_beside_flows_can_be_anything(house: House) -> None:
    """Keys, quarantine and the services they may call: each agent writes nonsense wherever its permissions allow."""
    team, kept = Team(), dict[str, bytes]()
    async with house.coordinator() as people, house.working(team.agents):
        for user in agents_of(house):
            bus = await house.connect(user.name)
            for number, pattern in enumerate(user.publish):
                subject = pattern.replace("*", "x").replace(">", "1.2.x.y.z")
                body = f"nonsense {number} of {user.name}".encode()
                match pattern.split(".")[0]:
                    case "flow":
                        continue  # the tests above
                    case "quarantine":
                        kept[subject] = body
                        await bus.publish(subject, body)
                    case "key" if user.name == "detection":
                        subject = key_subject("refund", ids.key_hash("refund", "the-key"))
                        await bus.publish(subject, body)
                    case "key":
                        await bus.publish(subject, body)
                    case _:
                        bus.connection.send(subject, body)
        assert {each.message.subject: each.message.body for each in await people.quarantined()} == kept
        started = await team.detection.start_flow("refund", claim(units=LARGE), key="the-key")
        assert not started.already_started
        await ends_well(people, started.flow_id)


async def test_what_the_broker_would_not_take_is_refused_before_it_is_sent(house: House) -> None:
    team = Team()
    async with house.coordinator() as people, house.working(team.agents):
        ledger = await house.connect("ledger")
        subject = f"flow.refund.{'a' * 32}.event.ledger.{'b' * 32}.payments.v1.RefundPaid"
        with pytest.raises(TooLarge, match="the broker accepts 1047552"):
            await ledger.publish(subject, bytes(ledger.connection.max_payload + 1))
        for odd in ("x" * 10_000, "ü" * 2_000):
            with pytest.raises(HandrailError, match="longer than the broker accepts") as refusal:
                await ledger.publish(subject.replace("a" * 32, odd), b"odd")
            assert refusal.value.reason_name == "WRONG_ADDRESS"
        await ledger.publish(subject, b"but still connected")
        # Whoever does not ask first loses its own connection for a moment, and nobody else does.
        ledger.connection.client._max_payload = 1 << 30
        ledger.connection.send(subject, bytes(2 << 20))
        await until(lambda: ledger.connection.client.stats["reconnects"] == 1 and ledger.connection.connected)
        assert not ledger.closed.is_set()
        await ends_well(people, await house.start(claim(units=LARGE)))
