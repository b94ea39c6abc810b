"""Every call that changes something, twice, at two coordinators on one server: answered the same, done once."""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW, TEMPLATE
from handrail.mesh.wire import ids
from tests.integration.api.test_story import Library, message
from tests.support import loans
from tests.support.api import Api, running_api
from tests.support.waiting import eventually


class TwoDesks(Library):
    """The library with two coordinators, and every call with an id of its own made at both."""

    def __init__(self, api: Api, other: Api) -> None:
        super().__init__(api)
        self._other = other

    async def call(self, who: str, method: str, request: Any) -> dict[str, Any]:
        """Call the one, then the other; then ask for something else with the same id."""
        if method.rpartition("/")[2].startswith(("Get", "List", "Plan")):
            return await super().call(who, method, request)
        asked = {**request, "requestId": str(uuid.uuid4())}
        first = await super().call(who, method, asked)
        stored = await self.stored()
        ran = await self._other.grpcurl(f"handrail.v1.{method}", token=self.tokens[who], data=asked)
        assert ran.code == 0, ran.err
        assert json.loads(ran.out) == first, f"{method} is answered otherwise the second time"
        assert await self.stored() == stored, f"{method} is recorded twice"
        return first

    async def stored(self) -> list[int]:
        """How many messages there are, once the coordinators have added what follows from them."""
        bus = self._api.replica.bus
        await eventually(self._is_settled)
        infos = [await bus.request_json(f"$JS.API.STREAM.INFO.{stream}") for stream in (FLOW, TEMPLATE)]
        return [int(info["state"]["messages"]) for info in infos]

    async def _is_settled(self) -> bool:
        bus = self._api.replica.bus
        infos = [await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}") for durable in ("decide", "track")]
        return not any(info["num_pending"] or info["num_ack_pending"] for info in infos)


@pytest.fixture
async def library(api: Api, bus: NatsBus, tmp_path: Path) -> AsyncIterator[TwoDesks]:
    """Two coordinators with one set of keys."""
    async with running_api(bus, tmp_path, holder="other") as other:
        yield TwoDesks(api, other)


async def test_p3_every_call_is_answered_the_second_time_as_the_first(library: TwoDesks, tmp_path: Path) -> None:
    await library.open(tmp_path)
    flow_id = await library.reserved_and_granted(100)
    approval = await library.approval(flow_id)
    vote = {"approvalId": approval["approvalId"], "digest": approval["digest"]}
    await library.call("lisa", "ApprovalService/ApproveProposal", vote)
    await library.call("luis", "ApprovalService/ApproveProposal", vote)
    flow = await library.flow(flow_id, "RUNNING")
    run = next(each for each in flow["stepRuns"] if each["step"] == "reserve")
    again = {"flowId": flow_id, "step": "reserve", "root": run["root"], "reason": "it was the wrong one"}
    retried = await library.call("olga", "FlowService/RetryStep", again)
    assert [each.get("run") for each in retried["flow"]["stepRuns"] if each["step"] == "reserve"] == [1]
    await library.call("olga", "FlowService/CompensateFlow", {"flowId": flow_id, "reason": "closed"})

    request = loans.put_request(tmp_path, version=2)
    await library.call("olga", "TemplateService/PutTemplate", request)
    other = await library.request(5)
    await library.call("olga", "FlowService/MigrateFlow", {"flowId": other, "toVersion": 2, "reason": "newer"})
    await library.call("olga", "TemplateService/ActivateTemplate", {"name": "loan", "version": 2})
    await library.call("olga", "TemplateService/ActivateTemplate", {"name": "loan", "version": 1, "reason": "back"})
    failed = {"@type": "type.googleapis.com/handrail.v1.StepFailed", "errorClass": "Lost", "text": "it is gone"}
    await library.answer("stacks", other, "reserve", ids.start_id(other), failed)
    await library.flow(other, "ESCALATED")
    retry = {"flowId": other, "reason": "found it", "choice": "CHOICE_RETRY"}
    await library.call("olga", "FlowService/ResolveEscalation", retry)
    await library.call("olga", "FlowService/CancelFlow", {"flowId": other, "reason": "closed"})

    third = await library.reserved_and_granted(100)
    approval = await library.approval(third)
    vote = {"approvalId": approval["approvalId"], "digest": approval["digest"]}
    await library.call("lisa", "ApprovalService/RejectProposal", vote)


async def test_an_id_stands_for_one_request(library: TwoDesks, tmp_path: Path) -> None:
    await library.open(tmp_path)
    flow_id = await library.request(5)
    asked = {"flowId": flow_id, "reason": "closed", "requestId": str(uuid.uuid4())}
    await Library.call(library, "olga", "FlowService/CancelFlow", asked)
    other: dict[str, Any] = {**asked, "reason": "open after all"}
    assert "REQUEST_ID_REUSED" in await library.refused("olga", "FlowService/CancelFlow", other)
    assert "REQUEST_ID_REUSED" in await library.refused("olga", "FlowService/CompensateFlow", asked)

    loan = message("LoanRequested", worth="5")
    start: dict[str, Any] = {"flowType": "loan", "data": loan, "requestId": str(uuid.uuid4())}
    begun = await Library.call(library, "stan", "FlowService/StartFlow", start)
    other = {**start, "data": {**loan, "worth": "6"}}
    assert "REQUEST_ID_REUSED" in await library.refused("stan", "FlowService/StartFlow", other)
    elses = await Library.call(library, "olga", "FlowService/StartFlow", other)
    assert elses["flowId"] != begun["flowId"], "an id is its caller's"
    keyed = [await Library.call(library, "stan", "FlowService/StartFlow", {**start, "key": key}) for key in ("a", "b")]
    assert len({begun["flowId"], *(each["flowId"] for each in keyed)}) == 3, "an id stands for a call with its key"
    other = {**other, "key": "a"}
    assert "REQUEST_ID_REUSED" in await library.refused("stan", "FlowService/StartFlow", other)

    put = {**loans.put_request(tmp_path, version=2), "requestId": str(uuid.uuid4())}
    await Library.call(library, "olga", "TemplateService/PutTemplate", put)
    other = {**loans.put_request(tmp_path, version=3), "requestId": put["requestId"]}
    assert "REQUEST_ID_REUSED" in await library.refused("olga", "TemplateService/PutTemplate", other)
    activate = {"name": "loan", "version": 2, "requestId": put["requestId"]}
    assert "REQUEST_ID_REUSED" in await library.refused("olga", "TemplateService/ActivateTemplate", activate)
