"""P5: what breaks its contract is refused with the field and the rule, or kept in quarantine with its bytes, at every
boundary.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2

from handrail.agents import Agent, Context
from handrail.mesh.errors import ContractViolation
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry, pack
from handrail.v1 import approval_service_pb2, flow_service_pb2, quarantine_service_pb2, template_service_pb2
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.failure_pb2 import Quarantined, StepFailed, StepProgress
from handrail.v1.flow_service_pb2 import PublishEventRequest, StartFlowRequest
from handrail.v1.template_service_pb2 import PutTemplateRequest
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from handrail.validate import validate_pb2
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    LargeRefundGranted,
    RefundReversed,
    Risk,
    SmallRefundGranted,
)
from tests.promises.forging import ghost, outcome, publish, quarantined
from tests.promises.team import LARGE, SMALL, Team, claim, granted, money
from tests.support.api import Refusal, bearer, refused
from tests.support.house import House
from tests.support.people import People
from tests.support.simulation import Simulation

NONSENSE = "x. >*" * 2_000

METHODS = [
    method
    for module in (approval_service_pb2, flow_service_pb2, quarantine_service_pb2, template_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]

STEP_FAILED = StepFailed.DESCRIPTOR.full_name

BROKEN_CLAIM = ("amount", "required")
BROKEN_EMAIL = ("email", "string.email")


def no_amount() -> ChargebackReceived:
    """A chargeback of nothing."""
    return ChargebackReceived(chargeback_id="cb-1", account_id="acc-1")


def no_address(*, units: int = SMALL) -> ChargebackEnriched:
    """An enriched chargeback with an invalid e-mail address."""
    return ChargebackEnriched(
        chargeback_id="cb-1", account_id="acc-1", amount=money(units), risk=Risk.RISK_LOW, email="nobody"
    )


def violations(refusal: Refusal) -> set[tuple[str, str]]:
    """The fields and rules that a refusal names."""
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    found = refusal.detail(error_details_pb2.BadRequest).field_violations
    assert all(violation.description for violation in found)
    return {(violation.field, violation.reason) for violation in found}


# At the API.


async def test_p5_a_request_with_nonsense_in_it_is_refused_with_each_field(house: House) -> None:
    async with house.coordinator() as people:
        for method in METHODS:
            request, broken = nonsense(method)
            assert broken, f"no rule guards a field of {method.name}"
            found = {field for field, _ in violations(await refused(call(people, method, request)))}
            assert found >= broken, method.name
    assert await house.mesh.messages() == 0


def nonsense(method: MethodDescriptor) -> tuple[Message, set[str]]:
    """A request with nonsense in each text and number and nothing where something is required; what is wrong in it."""
    request: Any = GetMessageClass(method.input_type)()
    broken = set()
    for field in method.input_type.fields:
        if field.type == FieldDescriptor.TYPE_STRING and field.is_repeated:
            getattr(request, field.name).append(NONSENSE)
            broken.add(f"{field.name}[0]")
        elif field.type == FieldDescriptor.TYPE_STRING:
            setattr(request, field.name, NONSENSE)
            broken.add(field.name)
        elif field.type == FieldDescriptor.TYPE_INT32:
            setattr(request, field.name, -1)
            broken.add(field.name)
        elif most := field.GetOptions().Extensions[validate_pb2.field].uint32.lte:
            setattr(request, field.name, most + 1)
            broken.add(field.name)
        elif field.name == "quarantine_id" or field.GetOptions().Extensions[validate_pb2.field].required:
            broken.add(field.name)
    return request, broken


def call(people: People, method: MethodDescriptor, request: Message) -> Any:
    """Call a method as somebody who may call all of them; awaitable."""
    path = f"/{method.containing_service.full_name}/{method.name}"
    answer = GetMessageClass(method.output_type)
    codec: dict[str, Any] = {
        "request_serializer": type(request).SerializeToString,
        "response_deserializer": answer.FromString,
    }
    metadata = bearer(people.api.token("eve", "operator", "starter", "viewer", agent="enrichment"))
    if method.server_streaming:
        return people.api.channel.unary_stream(path, **codec)(request, metadata=metadata).read()
    return people.api.channel.unary_unary(path, **codec)(request, metadata=metadata)


async def test_p5_a_flow_that_would_begin_with_a_broken_message_is_refused(house: House) -> None:
    async with house.coordinator() as people:
        request = StartFlowRequest(flow_type="refund", data=pack(no_amount()), key="the-key")
        refusal = await refused(people.flows.StartFlow(request, metadata=people.by("olga")))
        assert violations(refusal) == {BROKEN_CLAIM}
        assert await house.mesh.messages() == 0
        assert (await people.start(claim(), key="the-key")).already_started is False, "the key was not used up"


async def test_p5_a_broken_outcome_is_refused(house: House) -> None:
    async with house.coordinator() as people:
        flow_id = await house.start(claim())
        request = PublishEventRequest(
            flow_id=flow_id,
            flow_type="refund",
            step="enrich",
            root=ids.start_id(flow_id),
            attempt=1,
            output_total=1,
            data=pack(no_address()),
        )
        by_agent = people.by("enrichment", agent="enrichment")
        assert violations(await refused(people.flows.PublishEvent(request, metadata=by_agent))) == {BROKEN_EMAIL}
        assert await house.mesh.messages() == 1
        request.data.value = b"\xff\xff"
        refusal = await refused(people.flows.PublishEvent(request, metadata=by_agent))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


async def test_p5_a_broken_template_is_refused_with_each_place(house: House) -> None:
    async with house.coordinator() as people:
        templates = TemplateServiceStub(people.api.channel)
        request = PutTemplateRequest(template=house.template.proto, descriptors=house.template.descriptor_set)
        request.template.version = 2
        request.template.steps[0].ClearField("timeout")
        request.template.steps[1].name = "Grant!"
        refusal = await refused(templates.PutTemplate(request, metadata=people.by("olga")))
        assert {field for field, _ in violations(refusal)} == {"template.steps[0].timeout", "template.steps[1].name"}

        request.template.CopyFrom(house.template.proto)
        request.template.version = 2
        request.template.gates[0].when = "event.amuont.units >= 1000"
        refusal = await refused(templates.PutTemplate(request, metadata=people.by("olga")))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TEMPLATE_REFUSED")
        (found,) = refusal.detail(error_details_pb2.BadRequest).field_violations
        assert found.field == "template.gates[0].when"
        assert "amuont" in found.description
        assert await house.mesh.messages("TEMPLATE") == 2, "the template and its activation, as before"


# In the SDK.


async def test_p5_an_agent_does_not_publish_what_breaks_its_contract(house: House) -> None:
    class Careless(Team):
        async def enrich(self, event: ChargebackReceived, ctx: Context) -> ChargebackEnriched:
            return no_address()

    team = Careless()
    async with house.coordinator() as people, house.working(team.agents):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "ESCALATED")
        history = await house.mesh.store.read("refund", flow_id)
    assert [recorded.type for recorded in history if recorded.agent == "enrichment"] == [STEP_FAILED]
    failed = StepFailed.FromString(history[1].event.data.value)
    assert (failed.error_class, failed.retryable) == ("CONTRACT_VIOLATION", False)
    for said in BROKEN_EMAIL:
        assert said in failed.text
        assert said in flow.escalations[0].reason


async def test_p5_an_agent_does_not_begin_a_flow_with_a_broken_message(house: House) -> None:
    team = Team()
    async with house.working([team.detection]):
        with pytest.raises(ContractViolation) as caught:
            await team.detection.start_flow("refund", no_amount(), key="the-key")
    assert [(each.field, each.rule) for each in caught.value.violations] == [BROKEN_CLAIM]
    assert await house.mesh.messages() == await house.mesh.messages("KEY") == 0


async def test_p5_an_agent_that_checks_what_comes_in_keeps_what_is_broken_apart(house: House) -> None:
    handled: list[ChargebackEnriched] = []
    refunds = Agent("refunds", validate_inbound=True)

    @refunds.on(ChargebackEnriched)
    async def grant(event: ChargebackEnriched) -> SmallRefundGranted | LargeRefundGranted:
        handled.append(event)
        return granted(event)

    async with house.coordinator() as people, house.working([refunds]):
        flow_id = await house.start(claim())
        entry = await outcome(house, flow_id, "enrich", no_address())
        await publish(house, entry)
        kept = await quarantined(people, reporter="refunds")
        check_kept(kept, entry, BROKEN_EMAIL)
        # Who waits for an answer is told, too.
        failed = await house.mesh.until(flow_id, lambda flow: flow.message_count == 3)
        assert [recorded.type for recorded in await house.mesh.store.read("refund", flow_id)][-1] == STEP_FAILED
        assert failed.runs.keys() == {("enrich", ids.start_id(flow_id))}
    assert not handled


# On the bus: published past the SDK, by the agent that may publish it.


async def test_p5_a_broken_first_event_on_the_bus_begins_nothing(house: House) -> None:
    flow_id = ids.flow_id_from_key("refund", "by hand")
    entry = Simulation(house.template, flow_id=flow_id).start(no_amount(), agent="detection")
    async with house.coordinator() as people:
        await publish(house, entry)
        check_kept(await quarantined(people), entry, BROKEN_CLAIM)
        assert not (await people.flow(flow_id)).step_runs


BROKEN_OUTCOMES: dict[str, tuple[Message, tuple[str, str]]] = {
    "a fact": (
        SmallRefundGranted(chargeback_id="cb-1", account_id="a", amount=money(LARGE), email="kim@example.com"),
        ("amount", "small_refund.below_1000"),
    ),
    "a proposal": (
        LargeRefundGranted(chargeback_id="cb-1", account_id="a", amount=money(SMALL), email="kim@example.com"),
        ("amount", "large_refund.from_1000"),
    ),
    "a failure": (StepFailed(error_class="", text="no"), ("error_class", "string.min_len")),
    "a heartbeat": (StepProgress(counter=1, note="n" * 2_000), ("note", "string.max_len")),
}


@pytest.mark.parametrize("what", BROKEN_OUTCOMES)
async def test_p5_what_is_broken_on_the_bus_does_not_count_and_is_kept(house: House, what: str) -> None:
    message, rule = BROKEN_OUTCOMES[what]
    team = Team()
    async with house.coordinator() as people, house.working([team.enrichment]):
        flow_id = await house.start(claim(units=LARGE))
        before = await house.mesh.until(flow_id, lambda flow: flow.message_count == 2)
        entry = await outcome(house, flow_id, "grant", message)
        await publish(house, entry)
        check_kept(await quarantined(people), entry, rule)
        after = await house.mesh.flow(flow_id)
        runs = {key: replace(run, refused="") for key, run in after.runs.items()}
        assert (after.facts, runs, after.proposals) == (before.facts, before.runs, before.proposals)
        assert [each.type for each in after.divergences] == [entry.address.message_type], "it is seen in the flow, too"


async def test_p5_a_broken_report_of_an_undo_does_not_count_and_is_kept(house: House) -> None:
    team = Team()
    async with house.coordinator() as people:
        async with house.working(team.all_but("notification")):
            flow_id = await house.start(claim())
            await house.mesh.until(flow_id, lambda flow: bool(flow.effects))
        await people.compensate(flow_id)
        flow = await house.mesh.flow(flow_id)
        (effect,) = flow.effects.values()
        entry = ghost(flow).undone(effect, RefundReversed(chargeback_id="cb-1", transfer_id="t-1"))
        await publish(house, entry)
        check_kept(await quarantined(people), entry, ("reversal_id", "string.min_len"))
        after = await house.mesh.flow(flow_id)
        assert after.effects == flow.effects


def check_kept(kept: Quarantined, entry: Entry, rule: tuple[str, str]) -> None:
    """It is all there, and it says why."""
    assert kept.reason == ErrorReason.ERROR_REASON_CONTRACT_VIOLATION
    assert (kept.subject, kept.body) == (entry.address.subject, entry.body)
    for said in rule:
        assert said in kept.detail
