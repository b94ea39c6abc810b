"""P6: what a caller may not do, or what could not count, is refused and leaves the flow as it was."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any, cast

import pytest

from handrail.agents import Agent
from handrail.coordinator.api.audit import RefusalAudit
from handrail.coordinator.api.authorization import set_caller
from handrail.coordinator.api.claims import caller_of
from handrail.coordinator.api.interceptors import Call
from handrail.coordinator.api.publish_event import Publishing
from handrail.coordinator.decide import votes
from handrail.coordinator.decide.caller import Caller
from handrail.coordinator.decide.grants import Grant, of_roles
from handrail.coordinator.reconcile.repeated_calls import caller_request
from handrail.mesh import telemetry
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow
from handrail.mesh.streams import FLOW
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.testing import FlowView, World
from handrail.v1.approval_service_pb2 import ApproveProposalRequest
from handrail.v1.decision_pb2 import ApprovalGiven
from handrail.v1.delegation_service_pb2 import Delegation, ListedDelegation
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.event_pb2 import Event
from handrail.v1.flow_service_pb2 import PublishEventRequest
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.support.agents import CHAIN, enriched, received, template

GATED = (
    CHAIN
    + """
gates:
  - {name: look, on: payments.v1.ChargebackEnriched, approvers: {roles: [finance], quorum: 2}, on_expiry: WAIT}
"""
)
FINANCE = of_roles(["finance"])


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """One flow type, whose first step proposes."""
    enrichment = Agent("enrichment")

    @enrichment.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        return enriched()

    async with World(templates=[template(GATED)], agents=[enrichment]) as world:
        yield world


async def vote(
    world: World,
    flow: FlowView,
    caller: Caller,
    *,
    digest: str = "",
    approve: bool = True,
    delegations: Sequence[ListedDelegation] = (),
) -> Flow:
    """Vote on the flow's one proposal."""
    (proposal,) = flow.flow.proposals.values()
    judge = partial(
        votes.vote,
        approval_id=proposal.recorded.event_id,
        digest=digest or proposal.digest,
        approve=approve,
        delegations=delegations,
    )
    return await world.coordinator.operator_actions.record(flow.flow_type, flow.flow_id, judge, caller=caller)


async def refused(world: World, flow: FlowView, caller: Caller, **how: object) -> str:
    """Vote in vain, often; the reason."""
    before = len(world.bus.messages[FLOW])
    reasons = set()
    for _ in range(20):
        with pytest.raises(HandrailError) as refusal:
            await vote(world, flow, caller, **how)  # type: ignore[arg-type]
        reasons.add(refusal.value.reason_name)
    assert len(world.bus.messages[FLOW]) == before, "callers fill the flow"
    (reason,) = reasons
    return reason


async def test_p6_votes_that_can_not_count_leave_nothing_in_the_flow(world: World) -> None:
    flow = await world.start("refund", received(), requester="olga")
    anna, ben = Caller("anna", FINANCE), Caller("ben", FINANCE)
    assert await refused(world, flow, Caller("mallory"), digest="0" * 64) == "DIGEST_MISMATCH"
    assert await refused(world, flow, Caller("mallory")) == "MISSING_ROLE"
    await vote(world, flow, anna)
    assert await refused(world, flow, anna, approve=False) == "ALREADY_VOTED"
    assert await refused(world, flow, Caller("Anna ", FINANCE), approve=False) == "ALREADY_VOTED"
    await vote(world, flow, ben)
    await world.settle()
    assert await refused(world, flow, Caller("carl", FINANCE)) == "APPROVAL_CLOSED"
    assert await refused(world, flow, Caller("mallory")) == "APPROVAL_CLOSED"


async def test_p6_a_vote_counts_by_the_roles_held_on_the_flows_own_type(world: World) -> None:
    flow = await world.start("refund", received(), requester="olga")
    elsewhere = Caller("mallory", frozenset({Grant("approver.finance", "loan"), Grant("reader", "refund")}))
    assert await refused(world, flow, elsewhere) == "MISSING_ROLE"
    here = {Grant("approver.finance", "refund"), Grant("approver.legal", "*")}
    others = {Grant("approver.sales", "loan"), Grant("operator", "*")}
    await vote(world, flow, Caller("anna", frozenset(here | others)))
    stored = Event.FromString(world.bus.messages[FLOW][-1].body)
    assert list(ApprovalGiven.FromString(stored.data.value).roles) == ["finance", "legal"]


async def test_p6_who_speaks_for_the_proposing_agent_passes_no_vote_on(world: World) -> None:
    flow = await world.start("refund", received(), requester="olga")
    anna = Delegation(delegator="anna", delegate="dora", role="finance", flow_type="refund", agent="enrichment")
    carl = Delegation(delegator="carl", delegate="dora", role="finance", flow_type="refund", agent="ledger")
    dora = Caller("dora", frozenset({Grant("reader", "refund")}))
    lent = [ListedDelegation(delegation=anna, sequence=1)]
    assert await refused(world, flow, dora, delegations=lent) == "PROPOSER_MAY_NOT_VOTE"
    after = await vote(world, flow, dora, delegations=[*lent, ListedDelegation(delegation=carl, sequence=2)])
    (proposal,) = after.proposals.values()
    assert [ballot.on_behalf_of for ballot in proposal.ballots] == ["carl"]


async def test_a_vote_that_its_voter_repeats_is_answered_with_the_vote(world: World) -> None:
    flow = await world.start("refund", received(), requester="olga")
    anna = Caller("anna", FINANCE)
    first = await vote(world, flow, anna)
    before = len(world.bus.messages[FLOW])
    for _ in range(3):
        again = await vote(world, flow, anna)
        assert again == first
    assert len(world.bus.messages[FLOW]) == before
    await vote(world, flow, Caller("ben", FINANCE))
    await world.settle()
    again = await vote(world, flow, anna)
    assert again == first, "the answer is the one of then"


async def test_p6_a_step_that_is_under_way_is_not_retried_and_nothing_is_recorded(world: World) -> None:
    world.stop_agent("enrichment")
    flow = await world.start("refund", received(), requester="olga")
    before = len(world.bus.messages[FLOW])
    for _ in range(3):
        with pytest.raises(HandrailError):
            await world.retry_step(flow, "enrich")
    assert len(world.bus.messages[FLOW]) == before


async def test_p6_who_proposed_does_not_vote_and_is_on_record(world: World) -> None:
    world.stop_agent("enrichment")
    flow = await world.start("refund", received(), requester="olga")
    root = ids.start_id(flow.flow_id)
    request = PublishEventRequest(
        flow_id=flow.flow_id, flow_type="refund", step="enrich", root=root, attempt=1, output_total=1,
        data=pack(enriched()),
    )  # fmt: skip
    publishing = Publishing(world.bus, world.coordinator.catalog, world.coordinator.store)
    await publishing.publish(request, Caller("Mallory", FINANCE, agent="enrichment"))
    await world.settle()
    (proposal,) = flow.flow.proposals.values()
    assert (proposal.recorded.event.request.caller, proposal.recorded.event.request.rpc) == ("mallory", "PublishEvent")
    for name in ("Mallory", "mallory", " MALLORY"):
        assert await refused(world, flow, Caller(name, FINANCE)) == "PROPOSER_MAY_NOT_VOTE"
    assert await refused(world, flow, Caller("carl", FINANCE, agent="enrichment")) == "PROPOSER_MAY_NOT_VOTE"
    await vote(world, flow, Caller("anna", FINANCE))
    await vote(world, flow, Caller("ben", FINANCE))
    await world.settle()
    assert flow.flow.facts_by_type["payments.v1.ChargebackEnriched"]


def test_a_call_is_the_same_whatever_its_id_and_however_its_callers_name_is_written() -> None:
    one = ApproveProposalRequest(approval_id="a" * 32, digest="b" * 64, request_id="ABCD")
    other = ApproveProposalRequest(approval_id="a" * 32, digest="b" * 64, request_id="abce")
    first, second = caller_request(one, Caller("Anna")), caller_request(other, Caller("anna "))
    assert (first.caller, first.rpc, first.digest) == (second.caller, second.rpc, second.digest)
    assert (first.id, second.id, first.rpc) == ("abcd", "abce", "ApproveProposal")
    other.comment = "but"
    assert caller_request(other, Caller("anna")).digest != first.digest


@pytest.mark.parametrize("name", ["\u0430nna", "agent/x", "Agent/ledger", " agent/x", "\u200b"])
async def test_p6_a_name_that_is_nobodys_or_kept_for_agents_gets_no_access(name: str) -> None:
    with pytest.raises(HandrailError) as refusal:
        caller_of({"sub": name})
    assert refusal.value.reason in (
        ErrorReason.ERROR_REASON_AMBIGUOUS_NAME,
        ErrorReason.ERROR_REASON_UNAUTHENTICATED,
    )


async def test_what_is_refused_is_logged_in_one_line_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    counted: list[tuple[str, int, object]] = []

    class Counting:
        def add(self, name: str, amount: int, attributes: object) -> None:
            counted.append((name, amount, attributes))

        def close(self) -> None:
            """Nothing is left to send."""

    async def proceed(_: Call) -> None:
        raise HandrailError(ErrorReason.ERROR_REASON_MISSING_ROLE, "no\nlonger \x1b[31m")

    async def serve(method: str) -> None:
        set_caller(Caller("mallory"), f"/handrail.v1.FlowService/{method}")
        call = Call(f"/handrail.v1.FlowService/{method}", {}, streams=False, context=cast("Any", None))
        await RefusalAudit().around(call, proceed)

    telemetry.use_counters(Counting())
    try:
        for method in ("CancelFlow", "GetFlow"):
            with pytest.raises(HandrailError):
                await asyncio.create_task(serve(method))
    finally:
        telemetry.use_counters(None)
    assert counted == [("refusals", 1, {"rpc": "CancelFlow", "reason": "MISSING_ROLE"})]
    assert caplog.messages == ["refused: mallory asked for CancelFlow: no\\nlonger \\x1b[31m (MISSING_ROLE)"]
