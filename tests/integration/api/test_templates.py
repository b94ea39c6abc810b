"""TemplateService: checked, stored once, activated, listed; what is wrong is told in full."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc import error_details_pb2

from handrail.v1 import template_service_pb2 as pb
from handrail.v1.template_pb2 import RejectAction, Severity
from tests.support import flows, loans
from tests.support.api import Api, Refusal, bearer, refused

NAME = "TemplateService"


def put(api: Api, request: pb.PutTemplateRequest, **options: Any) -> Any:
    token = api.token("olga", "operator")
    return api.call(f"{NAME}/PutTemplate", request, pb.PutTemplateResponse, metadata=bearer(token), **options)


def check(api: Api, request: pb.CheckTemplateRequest) -> Any:
    return api.call(
        f"{NAME}/CheckTemplate", request, pb.CheckTemplateResponse, metadata=bearer(api.token("olga", "operator"))
    )


def activate(api: Api, version: int, name: str = "refund") -> Any:
    request = pb.ActivateTemplateRequest(name=name, version=version, reason="a test")
    token = api.token("olga", "operator")
    return api.call(f"{NAME}/ActivateTemplate", request, pb.ActivateTemplateResponse, metadata=bearer(token))


def get(api: Api, version: int = 0, name: str = "refund") -> Any:
    request = pb.GetTemplateRequest(name=name, version=version)
    return api.call(f"{NAME}/GetTemplate", request, pb.GetTemplateResponse, metadata=bearer(api.token("vera")))


def refund(version: int = 1, **options: Any) -> pb.PutTemplateRequest:
    template = flows.template(version=version, **options)
    for gate in template.proto.gates:
        gate.on_reject = RejectAction.REJECT_ACTION_COMPENSATE
    return pb.PutTemplateRequest(template=template.proto, descriptors=template.descriptor_set)


async def test_a_template_is_stored_once_and_never_changes(api: Api) -> None:
    first = await put(api, refund())
    assert not first.already_stored
    again = await put(api, refund())
    assert (again.already_stored, again.digest) == (True, first.digest)
    refusal = await refused(put(api, refund(gated=True)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ALREADY_EXISTS, "TEMPLATE_EXISTS")
    stored = (await get(api, 1)).stored
    assert (stored.put_by, stored.digest) == ("olga", first.digest)


async def test_activation_says_which_version_new_flows_begin_with(api: Api) -> None:
    await put(api, refund(1))
    await put(api, refund(2))
    refusal = await refused(get(api))
    assert refusal.reason == "FLOW_TYPE_NOT_FOUND"
    activation = (await activate(api, 2)).activation
    assert (activation.version, activation.by, activation.reason) == (2, "olga", "a test")
    assert (await get(api)).stored.template.version == 2
    await activate(api, 1)
    assert (await get(api)).stored.template.version == 1
    assert not (await get(api, 2)).active
    refusal = await refused(activate(api, 3))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "TEMPLATE_NOT_FOUND")


async def test_activation_says_when_the_brokers_permissions_change(api: Api) -> None:
    await put(api, refund(1))
    await put(api, refund(2))
    await put(api, refund(3, gated=True))
    assert (await activate(api, 1)).permissions_changed
    assert not (await activate(api, 2)).permissions_changed
    assert (await activate(api, 3)).permissions_changed  # the enriched chargeback is now proposed
    assert not (await activate(api, 1)).permissions_changed


async def test_activation_updates_the_durables_first(api: Api) -> None:
    await put(api, refund())
    await activate(api, 1)
    info = await api.replica.bus.request_json("$JS.API.CONSUMER.INFO.FLOW.agent-enrichment")
    assert f"flow.refund.*.event.*.*.{flows.RECEIVED}" in info["config"]["filter_subjects"]


async def test_a_check_finds_all_and_stores_nothing(api: Api) -> None:
    request = refund()
    request.template.steps[0].emits[0] = "payments.v1.Nonsense"
    answer = await check(api, pb.CheckTemplateRequest(template=request.template, descriptors=request.descriptors))
    assert {finding.code for finding in answer.findings} >= {"HR002"}
    assert answer.findings[0].severity == Severity.SEVERITY_ERROR
    refusal = await refused(get(api, 1))
    assert refusal.reason == "TEMPLATE_NOT_FOUND"


async def test_a_refused_template_lists_every_finding_as_a_field(api: Api) -> None:
    request = refund()
    request.template.steps[0].emits[0] = "payments.v1.Nonsense"
    refusal = await refused(put(api, request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TEMPLATE_REFUSED")
    violations = refusal.detail(error_details_pb2.BadRequest).field_violations
    assert ("template.steps[0].emits[0]", "HR002") in {(each.field, each.reason) for each in violations}


async def test_a_refusal_with_a_thousand_findings_still_reaches_the_caller(api: Api) -> None:
    request = refund()
    for number in range(100):
        request.template.steps.add().CopyFrom(request.template.steps[0])
        request.template.steps[-1].name = f"step_{number}"
        request.template.steps[-1].emits[:] = [f"payments.v1.{'Very' * 20}Unknown{number}_{n}" for n in range(10)]
    refusal = await refused(put(api, request))
    assert refusal.reason == "TEMPLATE_REFUSED"
    violations = refusal.detail(error_details_pb2.BadRequest).field_violations
    assert violations[0].field.startswith("template.")
    assert "more" in violations[-1].description


async def test_a_field_that_breaks_its_rule_is_named(api: Api) -> None:
    request = refund()
    request.template.steps[0].ClearField("timeout")
    request.template.name = "No Name"
    refusal = await refused(put(api, request))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    violations = refusal.detail(error_details_pb2.BadRequest).field_violations
    fields = {each.field: each.reason for each in violations}
    assert fields == {"template.name": "string.pattern", "template.steps[0].timeout": "required"}


@pytest.mark.parametrize("descriptors", [b"\xff\xff\xff", b"nonsense"])
async def test_descriptors_that_are_none_are_refused(api: Api, descriptors: bytes) -> None:
    refusal = await refused(put(api, pb.PutTemplateRequest(template=refund().template, descriptors=descriptors)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "MALFORMED")


def with_filler(folder: Path, messages: int) -> pb.PutTemplateRequest:
    """The loan template with this many further messages of about half a kilobyte in its contracts."""
    filler = "\n".join(f"message Filler{n} {{ string {'long' * 60}_{n} = 1; }}" for n in range(messages))
    request = ParseDict({"template": loans.TEMPLATE}, pb.PutTemplateRequest())
    request.descriptors = loans.descriptors(folder, f"{loans.PROTO}\n{filler}")
    return request


async def test_contracts_that_become_too_large_to_read_back_are_not_stored(api: Api, tmp_path: Path) -> None:
    # Below the limit as they come; what is stored has Google's own files besides.
    request = with_filler(tmp_path, 1600)
    assert len(request.descriptors) < 900_000
    refusal = await refused(put(api, request, timeout=30))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "TOO_LARGE")
    assert (await refused(get(api, 1, "loan"))).reason == "TEMPLATE_NOT_FOUND"


async def test_contracts_of_more_than_800_kilobytes_are_taken(api: Api, tmp_path: Path) -> None:
    request = with_filler(tmp_path, 1500)
    assert len(request.descriptors) > 800_000
    await put(api, request, timeout=30)
    described = await api.grpcurl("describe", "library.v1.LoanGranted", token=api.token("vera"))
    assert described.code == 0, described.err


async def test_a_request_beyond_the_limit_is_refused(api: Api) -> None:
    request = pb.PutTemplateRequest(template=refund().template, descriptors=b"x" * (1 << 20))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await put(api, request)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def list_page(api: Api, **request: Any) -> pb.ListTemplatesResponse:
    call = api.call(
        f"{NAME}/ListTemplates",
        pb.ListTemplatesRequest(**request),
        pb.ListTemplatesResponse,
        metadata=bearer(api.token("vera")),
    )
    answer: pb.ListTemplatesResponse = await call
    return answer


async def test_templates_are_listed_by_name_and_version_page_by_page(api: Api) -> None:
    wanted = [("a", 1), ("a", 2), ("a", 10), ("a-b", 1), ("ab", 1)]
    for name, version in reversed(wanted):
        await put(api, refund(version, name=name))
    await activate(api, 2, "a")
    seen, token = [], ""
    while True:
        page = await list_page(api, page_size=2, page_token=token)
        seen += list(page.templates)
        token = page.next_page_token
        if not token:
            break
    assert [(each.name, each.version) for each in seen] == wanted
    assert [each.version for each in seen if each.active] == [2]
    only = await list_page(api, name="a")
    assert [each.version for each in only.templates] == [1, 2, 10]


async def log_page(api: Api, **request: Any) -> pb.ListActivationsResponse:
    call = api.call(
        f"{NAME}/ListActivations",
        pb.ListActivationsRequest(**request),
        pb.ListActivationsResponse,
        metadata=bearer(api.token("vera")),
    )
    answer: pb.ListActivationsResponse = await call
    return answer


async def test_the_log_of_activations_says_who_why_and_what_rolled_back(api: Api) -> None:
    assert (await refused(log_page(api, name="refund"))).reason == "TEMPLATE_NOT_FOUND"
    await put(api, refund(1))
    assert not (await log_page(api, name="refund")).activations
    await put(api, refund(2))
    for version in (1, 2, 2, 1, 2):
        await activate(api, version)
    whole = await log_page(api, name="refund")
    assert [(e.number, e.activation.version, e.previous_version, e.rollback) for e in whole.activations] == [
        *((4, 2, 1, False), (3, 1, 2, True), (2, 2, 1, False), (1, 1, 0, False)),
    ]
    assert {(each.activation.by, each.activation.reason) for each in whole.activations} == {("olga", "a test")}
    first = await log_page(api, name="refund", page_size=3)
    rest = await log_page(api, name="refund", page_size=3, page_token=first.next_page_token)
    assert [each.number for each in (*first.activations, *rest.activations)] == [4, 3, 2, 1]
    assert (bool(first.next_page_token), rest.next_page_token) == (True, "")
    stranger = log_page(api, name="refund", page_token=(await list_page(api, page_size=1)).next_page_token)
    assert (await refused(stranger)).reason == "BAD_PAGE_TOKEN"


async def bad_page(api: Api, **request: Any) -> Refusal:
    call = api.call(
        f"{NAME}/ListTemplates",
        pb.ListTemplatesRequest(**request),
        pb.ListTemplatesResponse,
        metadata=bearer(api.token("vera")),
    )
    return await refused(call)


async def test_a_page_token_belongs_to_its_listing(api: Api) -> None:
    await put(api, refund(1))
    await put(api, refund(2))
    token = (await list_page(api, page_size=1)).next_page_token
    assert (await bad_page(api, page_token=token, name="refund")).reason == "BAD_PAGE_TOKEN"
    assert (await bad_page(api, page_token="nonsense")).reason == "BAD_PAGE_TOKEN"
    assert (await bad_page(api, page_token="!")).reason == "BAD_PAGE_TOKEN"
    refusal = await bad_page(api, page_size=-1)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "CONTRACT_VIOLATION")
    assert refusal.detail(error_details_pb2.BadRequest).field_violations[0].field == "page_size"
