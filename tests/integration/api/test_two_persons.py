"""Acts that need two persons, over the API and the command line of a running coordinator."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest

from handrail.mesh.template import Template
from handrail.mesh.wire.subjects import activation_subject
from handrail.v1 import act_service_pb2 as acts
from handrail.v1 import flow_service_pb2 as flows
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.act_pb2 import Act, ActStatus, PendingAct
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.template_pb2 import Activation
from tests.support import orders
from tests.support.api import Api, Refusal, bearer, refused

GUARDED = {"flow__require_two": ["CANCEL"]}
REASON = "no longer wanted"


class Shop:
    """A shop in which nobody cancels an order alone, and the people who work there."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.tokens = {
            "ola": api.token("ola", "operator"),
            "OLA": api.token(" OLA", "operator"),
            "kim": api.token("kim", "operator"),
            "lou": api.token("lou", "intern"),
            "ann": api.token("ann", grants=["breakglass@order"]),
            "ola's agent": api.token("ola", "operator", agent="warehouse"),
        }

    async def call(self, who: str, method: str, request: Any, answer: type[Any]) -> Any:
        """Call in somebody's name."""
        return await self.api.call(method, request, answer, metadata=bearer(self.tokens[who]))

    async def refused(self, who: str, method: str, request: Any, answer: type[Any]) -> Refusal:
        """Call in somebody's name, who is refused."""
        return await refused(self.call(who, method, request, answer))

    async def open(self, *versions: Template) -> None:
        """Store these versions, and activate the first."""
        for template in versions:
            put = templates.PutTemplateRequest(template=template.proto, descriptors=template.descriptor_set)
            await self.call("ola", "TemplateService/PutTemplate", put, templates.PutTemplateResponse)
        activate = templates.ActivateTemplateRequest(name="order", version=versions[0].version)
        await self.call("ola", "TemplateService/ActivateTemplate", activate, templates.ActivateTemplateResponse)

    async def order(self) -> str:
        """Begin an order; its flow id."""
        data = orders.make("OrderPlaced", buyer="eve", units=2)
        request = flows.StartFlowRequest(flow_type="order")
        request.data.Pack(data)
        started = await self.call("ola", "FlowService/StartFlow", request, flows.StartFlowResponse)
        return str(started.flow_id)

    async def cancel(self, flow_id: str, who: str = "ola", **more: Any) -> flows.CancelFlowResponse:
        """Ask for an order to be cancelled."""
        request = flows.CancelFlowRequest(flow_id=flow_id, reason=REASON, **more)
        answer: flows.CancelFlowResponse = await self.call(
            who, "FlowService/CancelFlow", request, flows.CancelFlowResponse
        )
        return answer

    async def act(self, act_id: str) -> PendingAct:
        """An act as it stands."""
        found = await self.call("lou", "ActService/GetAct", acts.GetActRequest(act_id=act_id), acts.GetActResponse)
        act: PendingAct = found.act
        return act

    async def count(self, flow_id: str) -> int:
        """How many messages a flow holds."""
        got = await self.call(
            "ola", "FlowService/GetFlow", flows.GetFlowRequest(flow_id=flow_id), flows.GetFlowResponse
        )
        return int(got.flow.message_count)


@pytest.fixture
async def shop(api: Api) -> Shop:
    shop = Shop(api)
    await shop.open(orders.load("order", **GUARDED))
    return shop


def confirm(act: PendingAct, **more: Any) -> acts.ConfirmActRequest:
    return acts.ConfirmActRequest(act_id=act.act_id, digest=act.digest, **more)


async def test_p6_another_person_confirms_what_one_asked_for(shop: Shop) -> None:
    flow_id = await shop.order()
    answer = await shop.cancel(flow_id)
    assert answer.flow.status == FlowStatus.FLOW_STATUS_RUNNING
    pending = answer.pending_act
    assert (pending.summary, pending.by, pending.reason, pending.persons) == ("cancel the flow", "ola", REASON, 2)

    listed = await shop.call("lou", "ActService/ListActs", acts.ListActsRequest(), acts.ListActsResponse)
    assert [act.act_id for act in listed.acts] == [pending.act_id]
    assert (await shop.act(pending.act_id)).status == ActStatus.ACT_STATUS_PENDING

    done = await shop.call("kim", "ActService/ConfirmAct", confirm(pending), acts.ConfirmActResponse)
    assert done.flow.status == FlowStatus.FLOW_STATUS_COMPENSATING
    assert (done.act.status, done.act.settled_by) == (ActStatus.ACT_STATUS_CONFIRMED, "kim")
    listed = await shop.call("lou", "ActService/ListActs", acts.ListActsRequest(), acts.ListActsResponse)
    assert not listed.acts
    everything = acts.ListActsRequest(include_closed=True)
    listed = await shop.call("lou", "ActService/ListActs", everything, acts.ListActsResponse)
    assert [act.act_id for act in listed.acts] == [pending.act_id]


async def test_p6_what_can_not_confirm_is_refused_and_records_nothing(shop: Shop) -> None:
    flow_id = await shop.order()
    pending = (await shop.cancel(flow_id)).pending_act
    before = await shop.count(flow_id)
    wrong_digest = acts.ConfirmActRequest(act_id=pending.act_id, digest="0" * 64)
    for who, request, reason in (
        ("ola", confirm(pending), "SAME_PERSON"),
        ("OLA", confirm(pending), "SAME_PERSON"),
        ("ola's agent", confirm(pending), "SAME_PERSON"),
        ("lou", confirm(pending), "MISSING_ROLE"),
        ("ann", confirm(pending), "MISSING_ROLE"),
        ("kim", confirm(pending, break_glass_reason="it burns"), "MISSING_ROLE"),
        ("kim", wrong_digest, "DIGEST_MISMATCH"),
        ("kim", acts.ConfirmActRequest(act_id="0" * 32, digest=pending.digest), "ACT_NOT_FOUND"),
    ):
        refusal = await shop.refused(who, "ActService/ConfirmAct", request, acts.ConfirmActResponse)
        assert refusal.reason == reason, (who, refusal)
    assert await shop.count(flow_id) == before


async def test_p3_a_repeated_call_is_answered_as_the_first_one(shop: Shop) -> None:
    flow_id = await shop.order()
    asked = str(uuid.uuid4())
    first = await shop.cancel(flow_id, request_id=asked)
    by_itself = await shop.cancel(flow_id)
    assert by_itself.pending_act == first.pending_act, "the same person asks for the same, while it waits"
    request = confirm(first.pending_act, request_id=str(uuid.uuid4()))
    done = await shop.call("kim", "ActService/ConfirmAct", request, acts.ConfirmActResponse)
    count = await shop.count(flow_id)
    assert await shop.cancel(flow_id, request_id=asked) == first
    assert await shop.call("kim", "ActService/ConfirmAct", request, acts.ConfirmActResponse) == done
    assert await shop.count(flow_id) == count


async def test_p6_who_withdraws_an_act_ends_it(shop: Shop) -> None:
    pending = (await shop.cancel(await shop.order())).pending_act
    request = acts.WithdrawActRequest(act_id=pending.act_id, reason="it is wanted after all")
    act = (await shop.call("ola", "ActService/WithdrawAct", request, acts.WithdrawActResponse)).act
    assert (act.status, act.settle_reason) == (ActStatus.ACT_STATUS_WITHDRAWN, "it is wanted after all")
    refusal = await shop.refused("kim", "ActService/ConfirmAct", confirm(pending), acts.ConfirmActResponse)
    assert refusal.reason == "ACT_CLOSED"


async def test_p6_breaking_the_glass_is_done_alone_recorded_and_heard(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    flow_id = await shop.order()
    pending = (await shop.cancel(flow_id)).pending_act
    request = confirm(pending, break_glass_reason="the warehouse burns")
    with caplog.at_level(logging.ERROR, "handrail.coordinator"):
        done = await shop.call("ann", "ActService/ConfirmAct", request, acts.ConfirmActResponse)
    assert done.flow.status == FlowStatus.FLOW_STATUS_COMPENSATING
    assert (done.act.status, done.act.settled_by) == (ActStatus.ACT_STATUS_FORCED, "ann")
    listing = flows.ListFlowEventsRequest(flow_id=flow_id)
    events = (await shop.call("lou", "FlowService/ListFlowEvents", listing, flows.ListFlowEventsResponse)).events
    (said,) = (each.event.confirmation for each in events if each.event.HasField("confirmation"))
    assert (said.by, said.break_glass, said.reason) == ("ann", True, "the warehouse burns")
    assert [r.getMessage() for r in caplog.records if "ann broke the glass" in r.getMessage()]


async def test_p6_a_version_without_the_gate_says_so_to_the_second_person(api: Api) -> None:
    shop = Shop(api)
    alone = {"roles": ["operator"], "quorum": 1}
    await shop.open(
        orders.load("order", **GUARDED), orders.load("order", flow__version=2, big_discount__approvers=alone)
    )
    flow_id = await shop.order()
    request = flows.MigrateFlowRequest(flow_id=flow_id, to_version=2, reason="as agreed")
    answer = await shop.call("ola", "FlowService/MigrateFlow", request, flows.MigrateFlowResponse)
    assert answer.flow.template_version == 1
    told = list((await shop.act(answer.pending_act.act_id)).warnings)
    assert told == list(answer.pending_act.warnings)
    assert any("Gate big_discount takes votes of operator instead of sales_lead" in text for text in told)
    assert any("One person is enough for CANCEL and MIGRATE" in text for text in told)
    done = await shop.call("kim", "ActService/ConfirmAct", confirm(answer.pending_act), acts.ConfirmActResponse)
    assert done.flow.template_version == 2
    assert not (await shop.cancel(flow_id)).HasField("pending_act")


class Office(Shop):
    """A shop in which nobody activates a version alone. Version 2 is stored, and lets one operator grant it all."""

    async def policy(self, *names: Act.ValueType, who: str = "ola") -> acts.SetPolicyResponse:
        """Set the policy."""
        request = acts.SetPolicyRequest(require_two=names, reason="as agreed")
        answer: acts.SetPolicyResponse = await self.call(who, "ActService/SetPolicy", request, acts.SetPolicyResponse)
        return answer

    async def activate(self, who: str = "ola", **more: Any) -> templates.ActivateTemplateResponse:
        """Ask for version 2."""
        request = templates.ActivateTemplateRequest(name="order", version=2, reason="as agreed", **more)
        answer: templates.ActivateTemplateResponse = await self.call(
            who, "TemplateService/ActivateTemplate", request, templates.ActivateTemplateResponse
        )
        return answer

    async def active(self) -> int:
        """The version that new flows begin with."""
        request = templates.GetTemplateRequest(name="order")
        got = await self.call("ola", "TemplateService/GetTemplate", request, templates.GetTemplateResponse)
        return int(got.stored.template.version)

    async def confirm(self, who: str, act: PendingAct, **more: Any) -> acts.ConfirmActResponse:
        """Confirm an act."""
        answer: acts.ConfirmActResponse = await self.call(
            who, "ActService/ConfirmAct", confirm(act, **more), acts.ConfirmActResponse
        )
        return answer


@pytest.fixture
async def office(api: Api) -> Office:
    office = Office(api)
    weaker = orders.load("order", flow__version=2, big_discount__approvers={"roles": ["operator"]})
    await office.open(orders.load("order"), weaker)
    assert (await office.policy(Act.ACT_ACTIVATE)).policy.by == "ola"
    return office


async def test_p6_with_the_policy_another_person_confirms_an_activation(office: Office) -> None:
    pending = (await office.activate()).pending_act
    assert await office.active() == 1
    assert pending.summary == "activate version 2 of order"
    assert any("takes votes of operator instead of sales_lead" in text for text in pending.warnings)
    assert (await office.act(pending.act_id)).warnings == pending.warnings
    page = acts.ListActsRequest(page_size=1)
    listed = await office.call("lou", "ActService/ListActs", page, acts.ListActsResponse)
    assert ([act.act_id for act in listed.acts], listed.next_page_token) == ([pending.act_id], "")
    for who, reason in (("OLA", "SAME_PERSON"), ("ola's agent", "SAME_PERSON"), ("lou", "MISSING_ROLE")):
        refusal = await office.refused(who, "ActService/ConfirmAct", confirm(pending), acts.ConfirmActResponse)
        assert refusal.reason == reason
    done = await office.confirm("kim", pending)
    assert (done.activated.activation.version, done.act.settled_by) == (2, "kim")
    assert await office.active() == 2
    assert not (await office.activate()).HasField("pending_act"), "it is active"


async def test_p3_a_repeated_activation_is_answered_as_the_first_one(office: Office) -> None:
    asked = str(uuid.uuid4())
    first = await office.activate(request_id=asked)
    assert (await office.activate()).pending_act == first.pending_act
    confirmed = str(uuid.uuid4())
    done = await office.confirm("kim", first.pending_act, request_id=confirmed)
    again = await office.confirm("kim", first.pending_act, request_id=confirmed)
    assert (again.activated.activation, again.act) == (done.activated.activation, done.act)
    assert (await office.activate(request_id=asked)).pending_act.act_id == first.pending_act.act_id
    assert await office.active() == 2


async def test_p6_the_policy_is_not_taken_back_alone(office: Office) -> None:
    pending = (await office.policy()).pending_act
    assert pending.summary == "let one person do everything to templates"
    assert list(pending.warnings) == ["One person is enough for ACTIVATE, CHANGE_POLICY; before, it took two."]
    in_force = await office.call("ola", "ActService/GetPolicy", acts.GetPolicyRequest(), acts.GetPolicyResponse)
    assert list(in_force.policy.require_two) == [Act.ACT_ACTIVATE]
    assert not (await office.confirm("kim", pending)).policy.require_two
    assert (await office.activate()).activation.version == 2


async def test_p6_an_activation_is_withdrawn_or_forced(office: Office, caplog: pytest.LogCaptureFixture) -> None:
    pending = (await office.activate()).pending_act
    withdraw = acts.WithdrawActRequest(act_id=pending.act_id, reason="not yet")
    for who, reason in (("lou", "MISSING_ROLE"), ("ann", "MISSING_ROLE")):
        refusal = await office.refused(who, "ActService/WithdrawAct", withdraw, acts.WithdrawActResponse)
        assert refusal.reason == reason
    ended = await office.call("kim", "ActService/WithdrawAct", withdraw, acts.WithdrawActResponse)
    assert ended.act.status == ActStatus.ACT_STATUS_WITHDRAWN
    pending = (await office.activate()).pending_act
    with caplog.at_level(logging.ERROR, "handrail.coordinator"):
        forced = await office.confirm("ann", pending, break_glass_reason="the shop burns")
    assert (forced.act.status, forced.act.settle_reason) == (ActStatus.ACT_STATUS_FORCED, "the shop burns")
    assert await office.active() == 2
    assert [r.getMessage() for r in caplog.records if "ann broke the glass" in r.getMessage()]


async def test_p6_what_was_recorded_around_the_coordinator_activates_nothing(office: Office) -> None:
    bus, catalog = office.api.replica.bus, office.api.replica.catalog
    alone = Activation(version=2, by="ola", reason="nobody looks")
    subject = activation_subject("order", catalog.decisions.next_number("order", "active"))
    await bus.publish(subject, alone.SerializeToString(), expected_sequence=0)
    assert await office.active() == 1
    assert (await office.confirm("kim", (await office.activate()).pending_act)).activated.activation.version == 2
