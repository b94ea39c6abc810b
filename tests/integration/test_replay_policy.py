"""What-if over the API, on 10,000 recorded refunds: exactly the counts of a script that knows nothing of Handrail."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import nats
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from handrail.mesh.bus import Bus, NatsBus
from handrail.mesh.streams import ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.decision_pb2 import (
    RULE_ACTION_COMPENSATE,
    RULE_ACTION_COMPLETE,
    RULE_ACTION_ESCALATE,
    RULE_ACTION_FAIL,
)
from handrail.v1.event_pb2 import Event
from payments.v1.payments_pb2 import (
    OUTCOME_REFUNDED,
    RISK_HIGH,
    RISK_MEDIUM,
    ChargebackEnriched,
    CustomerNotified,
    LargeRefundGranted,
    SmallRefundGranted,
)
from tests.support.api import Api, bearer, refused, running_api
from tests.support.flows import stored
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import REFUND, record, refund_template

REFUNDS = 10_000

GATE = """
  - name: medium_refund
    on: payments.v1.SmallRefundGranted
    when: event.amount.units >= 500
    approvers: {roles: [finance], quorum: 1}
    expires_after: 14400s
"""
RULES = """\
  - name: tiny
    on: [payments.v1.ChargebackEnriched]
    when: event.amount.units < 3
    then: COMPLETE
  - name: risky
    on: [payments.v1.ChargebackEnriched]
    when: event.risk == payments.v1.Risk.RISK_HIGH
    then: ESCALATE
  - name: slow
    on: [payments.v1.RefundPaid]
    when: >-
      flow.elapsed > duration('%dms')
      && flow.latest['payments.v1.ChargebackEnriched'].risk == payments.v1.Risk.RISK_MEDIUM
    then: COMPENSATE
  - name: large_and_paid
    on: [payments.v1.CustomerNotified]
    when: >-
      flow.counts['payments.v1.LargeRefundGranted'] + flow.counts['payments.v1.RefundPaid'] >= 2
      && event.outcome == payments.v1.Outcome.OUTCOME_REFUNDED
    then: FAIL
"""


def changed(milliseconds: int = 1000) -> str:
    """The demo's template with a threshold of 1,500 for large refunds, a new gate from 500 on, and four other rules."""
    text = REFUND.read_text().replace("version: 1", "version: 2").replace(">= 1000", ">= 1500") + GATE
    return f"{text[: text.index('rules:')]}rules:\n{RULES % milliseconds}{text[text.index('gates:') :]}"


@dataclass
class Raw:
    """One refund, read without Handrail: its messages as kind, type, event and time in microseconds."""

    messages: list[tuple[str, str, Event, int]] = field(default_factory=list)

    def facts(self) -> Iterator[tuple[str, Event, int]]:
        """What counted: plain events and released proposals."""
        return ((name, event, micros) for kind, name, event, micros in self.messages if kind in ("event", "released"))


async def read_raw(url: str) -> dict[str, Raw]:
    """Every refund in the stream, with nats-py and protobuf alone."""
    client = await nats.connect(url)
    context = client.jetstream()
    total = (await context.stream_info("FLOW")).state.messages
    config = ConsumerConfig(ack_policy=AckPolicy.NONE, deliver_policy=DeliverPolicy.ALL)
    pull = await context.pull_subscribe("flow.refund.>", stream="FLOW", config=config)
    flows: dict[str, Raw] = {}
    read = 0
    while read < total:
        for message in await pull.fetch(min(1000, total - read)):
            _, _, flow_id, kind, _, _, name = message.subject.split(".", 6)
            micros = int(message.reply.split(".")[-2]) // 1000
            flows.setdefault(flow_id, Raw()).messages.append((kind, name, Event.FromString(message.data), micros))
            read += 1
    await client.close()
    return flows


def brute_force(flow: Raw, milliseconds: int) -> list[str]:
    """What the changed template would have done, written out by hand."""
    done = []
    began = flow.messages[0][3]
    risk, large, paid, ended = 0, 0, 0, False
    for kind, name, event, micros in flow.messages:
        if ended:
            break
        if name == "payments.v1.ChargebackEnriched":
            enriched = ChargebackEnriched.FromString(event.data.value)
            risk = enriched.risk
            if enriched.amount.units < 3:
                done.append("tiny")
                ended = True
            elif risk == RISK_HIGH:
                done.append("risky")
        elif name == "payments.v1.SmallRefundGranted":
            if SmallRefundGranted.FromString(event.data.value).amount.units >= 500:
                done.append("medium_refund")
        elif name == "payments.v1.LargeRefundGranted":
            if kind == "proposal" and LargeRefundGranted.FromString(event.data.value).amount.units >= 1500:
                done.append("large_refund")
            large += kind == "released"
        elif name == "payments.v1.RefundPaid":
            paid += 1
            if micros - began > milliseconds * 1000 and risk == RISK_MEDIUM:
                done.append("slow")
                ended = True
        elif name == "payments.v1.CustomerNotified":
            told = CustomerNotified.FromString(event.data.value)
            if large + paid >= 2 and told.outcome == OUTCOME_REFUNDED:
                done.append("large_and_paid")
                ended = True
    return done


def asked_then(flow: Raw) -> int:
    """How often version 1 asked: about every large refund, for it has none below 1,000."""
    return sum(kind == "proposal" for kind, _, _, _ in flow.messages)


async def replayed(
    api: Api, request: pb.ReplayPolicyRequest
) -> tuple[pb.ReplaySummary, list[pb.ReplayDifference], list[pb.ReplayProgress]]:
    """All that a replay says."""
    rpc = api.channel.unary_stream(
        "/handrail.v1.TemplateService/ReplayPolicy",
        request_serializer=pb.ReplayPolicyRequest.SerializeToString,
        response_deserializer=pb.ReplayPolicyResponse.FromString,
    )
    summary, differences, progress = pb.ReplaySummary(), [], []
    async for response in rpc(request, metadata=bearer(api.token("olga", "operator"))):
        match response.WhichOneof("result"):
            case "summary":
                summary = response.summary
            case "difference":
                differences.append(response.difference)
            case "progress":
                progress.append(response.progress)
    return summary, differences, progress


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server with the refunds and the template that they were recorded under."""

    async def fill(server: NatsServer) -> None:
        async with await NatsBus.connect(server.settings()) as bus:
            await ensure_streams(bus)
            await Catalog(bus).put(stored(refund_template()))
            await record(bus, REFUNDS, seed=7)

    with running_server(tmp_path_factory.mktemp("recorded")) as server:
        asyncio.run(fill(server))
        yield server


async def test_what_if_counts_what_a_brute_force_script_counts_and_writes_nothing(
    recorded: NatsServer, tmp_path: Path
) -> None:
    flows = await read_raw(recorded.url)
    assert len(flows) == REFUNDS
    took = sorted(flow.messages[-1][3] - flow.messages[0][3] for flow in flows.values())
    milliseconds = took[REFUNDS // 2] // 1000
    template = refund_template(changed(milliseconds))
    starts = sorted(flow.messages[0][3] for flow in flows.values())
    since, until = starts[REFUNDS // 4], starts[3 * REFUNDS // 4]
    async with (
        await NatsBus.connect(recorded.settings()) as bus,
        running_api(bus, tmp_path, decides=False) as api,
    ):
        before = await streams(bus)
        whole, differences, progress = await replayed(
            api, pb.ReplayPolicyRequest(template=template.proto, max_differences=7)
        )
        part, _, _ = await replayed(
            api, pb.ReplayPolicyRequest(template=template.proto, since=stamp(since), until=stamp(until))
        )
        assert await streams(bus) == before, "nothing is written"
    check(whole, list(flows.values()), milliseconds)
    check(part, [flow for flow in flows.values() if since <= flow.messages[0][3] < until], milliseconds)
    assert len(differences) == 7
    assert all(difference.flow_id in flows and difference.reason for difference in differences)
    assert [each.share for each in progress] == sorted(each.share for each in progress)
    assert (progress[-1].share, progress[-1].flows) == (1.0, REFUNDS)


def check(summary: pb.ReplaySummary, flows: list[Raw], milliseconds: int) -> None:
    """Require the very counts that brute force gives."""
    done = [brute_force(flow, milliseconds) for flow in flows]
    asked = [asked_then(flow) for flow in flows]
    number = Counter(name for names in done for name in names)
    assert all(number[name] for name in ("tiny", "risky", "slow", "large_and_paid", "medium_refund", "large_refund"))
    assert summary.flows == len(flows)
    assert summary.messages == sum(len(flow.messages) for flow in flows)
    assert summary.then == pb.ReplayedFlows(needed_approval=sum(map(bool, asked)))
    assert summary.now == pb.ReplayedFlows(
        needed_approval=sum("medium_refund" in names or "large_refund" in names for names in done),
        escalated=number["risky"],
        compensated=number["slow"],
        failed=number["large_and_paid"],
        completed=number["tiny"],
    )
    assert list(summary.gates) == [
        pb.ReplayedGate(gate="large_refund", asked_then=sum(asked), asked_now=number["large_refund"]),
        pb.ReplayedGate(gate="medium_refund", asked_now=number["medium_refund"]),
    ]
    assert list(summary.rules) == [
        pb.ReplayedRule(rule="large_and_paid", action=RULE_ACTION_FAIL, tripped_now=number["large_and_paid"]),
        pb.ReplayedRule(rule="risky", action=RULE_ACTION_ESCALATE, tripped_now=number["risky"]),
        pb.ReplayedRule(rule="slow", action=RULE_ACTION_COMPENSATE, tripped_now=number["slow"]),
        pb.ReplayedRule(rule="tiny", action=RULE_ACTION_COMPLETE, tripped_now=number["tiny"]),
    ]
    rules = ("tiny", "risky", "slow", "large_and_paid", "medium_refund")
    verdicts = [
        sum(name in names for name in rules) + (bool(once) != ("large_refund" in names))
        for names, once in zip(done, asked, strict=True)
    ]
    assert summary.differences == sum(verdicts)
    assert summary.flows_differing == sum(map(bool, verdicts))
    assert not summary.unevaluated


async def streams(bus: Bus) -> list[tuple[str, int, int]]:
    """Last sequence and number of messages of the streams that hold what happened and what was put."""
    states = []
    for name in ("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY"):
        state = (await bus.request_json(f"$JS.API.STREAM.INFO.{name}"))["state"]
        states.append((name, int(state["last_seq"]), int(state["messages"])))
    return states


def stamp(micros: int) -> Timestamp:
    """A time in microseconds as the API has it."""
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


async def test_a_template_that_does_not_pass_its_check_is_refused(recorded: NatsServer, tmp_path: Path) -> None:
    template = refund_template().proto
    template.gates[0].when = "event.amount.cents > 1"
    async with await NatsBus.connect(recorded.settings()) as bus, running_api(bus, tmp_path, decides=False) as api:
        refusal = await refused(first(api, pb.ReplayPolicyRequest(template=template)))
        assert refusal.reason == "TEMPLATE_REFUSED"
        template = refund_template().proto
        template.name = "unheard_of"
        refusal = await refused(first(api, pb.ReplayPolicyRequest(template=template)))
        assert refusal.reason == "FLOW_TYPE_NOT_FOUND"
        refusal = await refused(first(api, pb.ReplayPolicyRequest(template=template), "viewer"))
        assert refusal.reason == "MISSING_ROLE"
        summary, _, _ = await replayed(
            api, pb.ReplayPolicyRequest(template=refund_template().proto, since=stamp(now() + 60_000_000))
        )
        assert summary.flows == 0


async def first(api: Api, request: pb.ReplayPolicyRequest, role: str = "operator") -> pb.ReplayPolicyResponse:
    """The first thing that a replay says."""
    rpc = api.channel.unary_stream(
        "/handrail.v1.TemplateService/ReplayPolicy",
        request_serializer=pb.ReplayPolicyRequest.SerializeToString,
        response_deserializer=pb.ReplayPolicyResponse.FromString,
    )
    call = rpc(request, metadata=bearer(api.token("olga", role)))
    async for response in call:
        assert isinstance(response, pb.ReplayPolicyResponse)
        return response
    raise AssertionError("it said nothing")


def now() -> int:
    """Microseconds since 1970."""
    return int(datetime.now(UTC).timestamp() * 1_000_000)
