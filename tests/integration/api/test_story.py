"""A flow type from outside the tree, put on a running coordinator and worked with grpcurl alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from handrail.mesh.wire import ids
from tests.support import loans
from tests.support.api import Api
from tests.support.waiting import eventually

NOT_FOUND = 64 + 5


class Library:
    """Calls as the people and agents of a library, each with a token of its own."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.tokens = {
            "olga": api.token("olga", "operator"),
            "stan": api.token("stan", "starter"),
            "lisa": api.token("lisa", "librarian"),
            "luis": api.token("luis", "librarian"),
            "stacks": api.token("stacks", agent="stacks"),
            "desk": api.token("desk", agent="desk"),
        }

    async def call(self, who: str, method: str, request: Any) -> dict[str, Any]:
        """Call and return the answer; AssertionError where it is refused."""
        ran = await self._api.grpcurl(f"handrail.v1.{method}", token=self.tokens[who], data=request)
        assert ran.code == 0, ran.err
        answer: dict[str, Any] = json.loads(ran.out)
        return answer

    async def refused(self, who: str, method: str, request: Any) -> str:
        """Call and return what grpcurl says about the refusal."""
        ran = await self._api.grpcurl(f"handrail.v1.{method}", token=self.tokens[who], data=request)
        assert ran.code > 64, ran.out
        return ran.err

    async def open(self, folder: Path) -> None:
        """Put and activate the template."""
        await self.call("olga", "TemplateService/PutTemplate", loans.put_request(folder))
        await self.call("olga", "TemplateService/ActivateTemplate", {"name": "loan", "version": 1})

    async def request(self, worth: int, *, who: str = "stan", **more: Any) -> str:
        """Start a loan and return its flow id."""
        data = {"@type": "type.googleapis.com/library.v1.LoanRequested", "bookId": "b1", "worth": str(worth)}
        started = await self.call(who, "FlowService/StartFlow", {"flowType": "loan", "data": data, **more})
        flow_id: str = started["flowId"]
        return flow_id

    async def answer(self, agent: str, flow_id: str, step: str, root: str, data: Any, **more: Any) -> dict[str, Any]:
        """Publish an outcome as an agent."""
        request = {
            "flowId": flow_id,
            "flowType": "loan",
            "step": step,
            "root": root,
            "attempt": 1,
            "outputTotal": 1,
            "data": data,
            **more,
        }
        return await self.call(agent, "FlowService/PublishEvent", request)

    async def flow(self, flow_id: str, status: str = "") -> dict[str, Any]:
        """The flow; with a status, once it has that."""

        async def get() -> dict[str, Any]:
            return dict((await self.call("lisa", "FlowService/GetFlow", {"flowId": flow_id}))["flow"])

        return await eventually(get, lambda flow: status in ("", flow["status"].removeprefix("FLOW_STATUS_")))

    async def approval(self, flow_id: str) -> dict[str, Any]:
        """The approval that the flow waits for."""
        flow = await self.flow(flow_id, "WAITING_APPROVAL")
        approval_id = flow["approvals"][0]["approvalId"]
        found: dict[str, Any] = await self.call("lisa", "ApprovalService/GetApproval", {"approvalId": approval_id})
        return dict(found["approval"])

    async def reserved_and_granted(self, worth: int) -> str:
        """A loan up to where the desk grants it."""
        flow_id = await self.request(worth)
        reserved = await self.answer("stacks", flow_id, "reserve", ids.start_id(flow_id), message("BookReserved"))
        await self.answer("desk", flow_id, "grant", reserved["eventId"], message("LoanGranted", worth=str(worth)))
        return flow_id


def message(name: str, **fields: str) -> dict[str, str]:
    return {"@type": f"type.googleapis.com/library.v1.{name}", "bookId": "b1", **fields}


async def test_a_flow_type_from_outside_is_learned_without_a_restart(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    assert (await api.grpcurl("describe", "library.v1.LoanRequested")).code != 0
    await library.open(tmp_path)
    described = await api.grpcurl("describe", "library.v1.LoanRequested", token=api.token("vera"))
    assert described.code == 0, described.err
    assert "int64 worth = 2" in described.out

    flow_id = await library.reserved_and_granted(5)
    flow = await library.flow(flow_id, "RUNNING")
    granted = next(run for run in flow["stepRuns"] if run["step"] == "grant")["outputIds"][0]
    handed_over = await library.answer("desk", flow_id, "hand_over", granted, message("BookHandedOver"))
    flow = await library.flow(flow_id, "COMPLETED")
    assert "expectations" not in flow

    events = (await library.call("lisa", "FlowService/ListFlowEvents", {"flowId": flow_id}))["events"]
    assert [event["kind"].removeprefix("KIND_") for event in events] == [
        "EVENT", "EVENT", "PROPOSAL", "RELEASED", "EVENT",
    ]  # fmt: skip
    assert events[0]["event"]["data"] == message("LoanRequested", worth="5")
    assert events[-1]["event"]["eventId"] == handed_over["eventId"]


async def test_a_gate_asks_people_over_grpcurl(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    await library.open(tmp_path)
    flow_id = await library.reserved_and_granted(100)
    approval = await library.approval(flow_id)
    assert approval["dataJson"] == message("LoanGranted", worth="100")
    assert approval["data"] == message("LoanGranted", worth="100")
    assert approval["gates"][0]["requester"] == "stan"
    listed = await library.call("lisa", "ApprovalService/ListApprovals", {"flowType": "loan", "scan": True})
    assert [each["approvalId"] for each in listed["approvals"]] == [approval["approvalId"]]

    vote = {"approvalId": approval["approvalId"], "digest": approval["digest"]}
    wrong = {**vote, "digest": "0" * 64}
    assert "DIGEST_MISMATCH" in await library.refused("luis", "ApprovalService/ApproveProposal", wrong)
    assert "MISSING_ROLE" in await library.refused("olga", "ApprovalService/ApproveProposal", vote)
    after = await library.call("lisa", "ApprovalService/ApproveProposal", {**vote, "comment": "a good home"})
    assert after["approval"]["status"] == "APPROVAL_STATUS_PENDING"
    assert await library.call("lisa", "ApprovalService/ApproveProposal", vote) == after, "a repeated vote is that vote"
    assert "ALREADY_VOTED" in await library.refused("lisa", "ApprovalService/RejectProposal", vote)
    after = await library.call("luis", "ApprovalService/ApproveProposal", vote)
    assert after["approval"]["status"] == "APPROVAL_STATUS_APPROVED"
    assert [each["voter"] for each in after["approval"]["votes"]] == ["lisa", "luis"]
    assert "APPROVAL_CLOSED" in await library.refused("luis", "ApprovalService/RejectProposal", vote)
    flow = await library.flow(flow_id, "RUNNING")
    assert flow["expectations"][0]["byAgent"] == "desk"


async def test_a_requester_does_not_vote_where_the_gate_says_so(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    library.tokens["stan"] = api.token("stan", "starter", "librarian")
    await library.open(tmp_path)
    approval = await library.approval(await library.reserved_and_granted(100))
    vote = {"approvalId": approval["approvalId"], "digest": approval["digest"]}
    assert "REQUESTER_MAY_NOT_VOTE" in await library.refused("stan", "ApprovalService/ApproveProposal", vote)


async def test_a_rejected_flow_is_compensated_by_its_agents(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    await library.open(tmp_path)
    flow_id = await library.reserved_and_granted(100)
    plan = await library.call("olga", "FlowService/PlanCompensation", {"flowId": flow_id})
    assert [effect["step"] for effect in plan["undos"]] == ["reserve"]

    approval = await library.approval(flow_id)
    vote = {"approvalId": approval["approvalId"], "digest": approval["digest"], "comment": "too old to lend"}
    rejected = await library.call("lisa", "ApprovalService/RejectProposal", vote)
    assert rejected["approval"]["status"] == "APPROVAL_STATUS_REJECTED"
    flow = await library.flow(flow_id, "COMPENSATING")
    owed = flow["expectations"][0]
    assert (owed["byAgent"], owed["step"]) == ("stacks", "reserve")
    reserved = plan["undos"][0]["eventId"]
    await library.answer("stacks", flow_id, "reserve", ids.start_id(flow_id), message("BookPutBack"), undoOf=reserved)
    flow = await library.flow(flow_id, "COMPENSATED")
    assert flow["effects"][0]["status"] == "EFFECT_STATUS_UNDONE"


async def test_people_step_in_over_grpcurl(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    await library.open(tmp_path)
    flow_id = await library.request(5, key="loan-7")
    assert await library.request(5, key="loan-7") == flow_id
    failed = {
        "@type": "type.googleapis.com/handrail.v1.StepFailed",
        "errorClass": "Lost", "text": "the book is not there", "outcomeUnknown": True,
    }  # fmt: skip
    await library.answer("stacks", flow_id, "reserve", ids.start_id(flow_id), failed)
    flow = await library.flow(flow_id, "ESCALATED")
    assert "the book is not there; whether it had its effect is unknown" in flow["statusReason"]
    choices = flow["escalations"][0]["choices"]
    assert "CHOICE_RETRY" in choices
    answer = {"flowId": flow_id, "reason": "found it", "choice": "CHOICE_ACCEPT"}
    assert "CHOICE_NOT_OFFERED" in await library.refused("olga", "FlowService/ResolveEscalation", answer)
    assert "MISSING_ROLE" in await library.refused("lisa", "FlowService/ResolveEscalation", answer)
    await library.call("olga", "FlowService/ResolveEscalation", {**answer, "choice": "CHOICE_RETRY"})
    flow = await library.flow(flow_id, "RUNNING")

    cancel = {"flowId": flow_id, "reason": "closed today"}
    stale = await library.refused("olga", "FlowService/CancelFlow", {**cancel, "etag": "1"})
    assert "ETAG_MISMATCH" in stale
    await library.call("olga", "FlowService/CancelFlow", {**cancel, "requestId": ids_uuid()})
    assert "WRONG_STATUS" in await library.refused("olga", "FlowService/CancelFlow", cancel)


async def test_a_flow_is_seen_as_it_stood(api: Api, tmp_path: Path) -> None:
    library = Library(api)
    await library.open(tmp_path)
    flow_id = await library.reserved_and_granted(5)
    first, second, *_ = (await library.call("lisa", "FlowService/ListFlowEvents", {"flowId": flow_id}))["events"]
    for moment in ({"asOfSequence": first["sequence"]}, {"asOfTime": first["time"]}):
        flow = (await library.call("lisa", "FlowService/GetFlow", {"flowId": flow_id, **moment}))["flow"]
        assert flow["lastSequence"] == first["sequence"], moment
        assert [run["step"] for run in flow["stepRuns"]] == ["reserve"]
    assert int(second["sequence"]) > int(first["sequence"])
    early = {"flowId": flow_id, "asOfTime": "2001-01-01T00:00:00Z"}
    assert "FLOW_NOT_FOUND" in await library.refused("lisa", "FlowService/GetFlow", early)


def ids_uuid() -> str:
    return "6b2d7a0e-0f3e-4f7a-9a53-0c8d2f6f1b11"
