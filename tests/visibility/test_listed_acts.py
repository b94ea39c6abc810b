"""Acts that need two persons: lists from the index equal those of a scan, and show nobody what a scan would not."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, update

from handrail.mesh.bus import NatsBus
from handrail.mesh.template import Template
from handrail.v1.act_pb2 import Act, ActStatus, PendingAct
from handrail.v1.act_service_pb2 import (
    ListActsRequest,
    ListActsResponse,
    SetPolicyRequest,
    SetPolicyResponse,
    WithdrawActRequest,
    WithdrawActResponse,
)
from handrail.v1.flow_service_pb2 import CancelFlowRequest, CancelFlowResponse
from handrail.visibility.index import schema
from tests.support import flows
from tests.support.api import Api, bearer
from tests.support.followed import until_covered
from tests.support.indexed import ask, indexed_api, pages
from tests.support.mesh import Mesh, publish

pytestmark = pytest.mark.usefixtures("patient")

DAY = timedelta(days=1)
METHOD = "ActService/ListActs"
REFUNDS, AUDITS = 5, 2


def guarded(name: str) -> Template:
    """A flow type whose flows nobody cancels alone."""
    plain = flows.template(name)
    plain.proto.require_two.append(Act.ACT_CANCEL)
    return Template.compile(plain.proto, plain.contracts)


@pytest.fixture
async def api(mesh: Mesh, bus: NatsBus, engine: Engine, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with an index of flows that somebody wants to cancel; one changed her mind."""
    await mesh.put(guarded("refund"))
    await mesh.put(guarded("audit"))
    async with indexed_api(bus, engine, tmp_path) as api:
        asked = []
        for number in range(REFUNDS + AUDITS):
            flow_type, flow = "refund" if number < REFUNDS else "audit", f"{number:032x}"
            await publish(bus, flows.start(flow, flow_type=flow_type))
            request = CancelFlowRequest(flow_id=flow, reason="no longer wanted")
            asked.append((await call(api, "FlowService/CancelFlow", request, CancelFlowResponse)).pending_act)
        withdraw = WithdrawActRequest(act_id=asked[1].act_id, reason="needed after all")
        await call(api, "ActService/WithdrawAct", withdraw, WithdrawActResponse)
        await until_covered(bus, engine)
        yield api


async def call(api: Api, method: str, request: Any, answer: type[Any]) -> Any:
    """Calls as an operator of all flow types."""
    return await api.call(method, request, answer, metadata=bearer(api.token("olga", "operator")))


async def listed(api: Api, *grants: str, **fields: Any) -> list[PendingAct]:
    request = ListActsRequest(page_size=2, **fields)
    return await pages(api, METHOD, request, ListActsResponse, "acts", *grants)


async def test_acts_equal_those_of_a_scan(api: Api) -> None:
    waiting, every = await listed(api), await listed(api, include_closed=True)
    assert (len(waiting), len(every)) == (REFUNDS + AUDITS - 1, REFUNDS + AUDITS)
    assert [each.request_time.ToNanoseconds() for each in every] == sorted(
        each.request_time.ToNanoseconds() for each in every
    )
    assert all(each.by == "olga" and each.digest for each in every)
    for fields in ({}, {"include_closed": True}, {"flow_type": "audit"}, {"flow_type": "nothing"}):
        assert without_time(await listed(api, **fields)) == without_time(await listed(api, scan=True, **fields))


def without_time(acts: list[PendingAct]) -> list[tuple[str, int, str]]:
    return [(each.act_id, each.status, each.summary) for each in acts]


async def test_acts_of_other_flow_types_are_left_out(api: Api) -> None:
    assert {each.flow_type for each in await listed(api, "reader@audit", include_closed=True)} == {"audit"}
    assert await listed(api, "reader@audit", flow_type="refund") == []


@pytest.fixture
async def changes(api: Api) -> list[str]:
    """The ids of acts on the policy, which nobody changes alone once it exists."""
    asked = [await change(api, days) for days in range(1, 5)]
    assert not asked[0].HasField("pending_act"), "there was none to change"
    return [each.pending_act.act_id for each in asked[1:]]


async def change(api: Api, days: int) -> SetPolicyResponse:
    """Has activations be confirmed within so many days, or asks for it."""
    request = SetPolicyRequest(require_two=[Act.ACT_ACTIVATE], reason="as agreed")
    request.confirm_within.FromTimedelta(days * DAY)
    admin = bearer(api.token("olga", grants=["template_admin@*"]))
    answer: SetPolicyResponse = await api.call("ActService/SetPolicy", request, SetPolicyResponse, metadata=admin)
    return answer


@pytest.mark.parametrize("scan", [False, True], ids=["index", "scan"])
async def test_acts_on_templates_come_first_and_push_no_other_one_out(api: Api, changes: list[str], scan: bool) -> None:
    everything = len(changes) + REFUNDS + AUDITS - 1
    whole = await ask(api, METHOD, ListActsRequest(page_size=50, scan=scan), ListActsResponse)
    expected = [each.act_id for each in whole.acts]
    assert (expected[: len(changes)], len(expected)) == (changes, everything)
    for size in (1, 2, 3, 4, everything):
        request = ListActsRequest(page_size=size, scan=scan)
        found = await pages(api, METHOD, request, ListActsResponse, "acts")
        assert [each.act_id for each in found] == expected, f"on pages of {size}"


async def test_every_page_counts_acts_on_templates(api: Api, changes: list[str]) -> None:
    request = ListActsRequest(page_size=2)
    for _ in range(4):
        page = await ask(api, METHOD, request, ListActsResponse)
        assert page.total.items == len(changes) + REFUNDS + AUDITS - 1
        request.page_token = page.next_page_token


async def test_what_is_decided_meanwhile_is_left_out(api: Api, engine: Engine) -> None:
    before = await listed(api)
    with engine.begin() as connection:  # the index has not heard of the act that was withdrawn
        connection.execute(update(schema.act).values(status="PENDING"))
    assert await listed_once(api) == before
    assert [each.status for each in await listed(api, include_closed=True)].count(ActStatus.ACT_STATUS_WITHDRAWN) == 1


async def listed_once(api: Api) -> list[PendingAct]:
    return list((await ask(api, METHOD, ListActsRequest(page_size=50), ListActsResponse)).acts)


async def test_acts_that_nobody_confirmed_in_time_wait_no_more(api: Api, engine: Engine) -> None:
    past = datetime.now(UTC) - timedelta(minutes=1)
    with engine.begin() as connection:
        connection.execute(update(schema.act).values(expires=past))
    assert await listed(api) == []


async def test_a_list_says_what_it_covers(api: Api) -> None:
    request = ListActsRequest(page_size=2, include_closed=True)
    answer = await ask(api, METHOD, request, ListActsResponse)
    assert answer.as_of.sequence
    assert answer.total.items == REFUNDS + AUDITS
    request.scan = True
    assert not (await ask(api, METHOD, request, ListActsResponse)).HasField("as_of")
