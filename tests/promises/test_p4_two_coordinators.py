"""P4: two coordinators at once, agents and people that race, three replicas: every reader folds the same."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import pytest

from handrail.coordinator.api.qualified_id import qualified
from handrail.coordinator.decide import decide
from handrail.mesh.bus import Bus
from handrail.mesh.errors import AlreadyStored
from handrail.mesh.flow import Flow, ProposalState, RunState, StepRun
from handrail.mesh.fold import begin, evolve, fold, is_final, status
from handrail.mesh.streams import FLOW, ensure_streams, start_flow
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.streams.history import History
from handrail.mesh.wire.envelope import Entry, Recorded, pack
from handrail.mesh.wire.subjects import Kind
from handrail.v1.approval_service_pb2 import (
    ApproveProposalRequest,
    ApproveProposalResponse,
    RejectProposalRequest,
    RejectProposalResponse,
)
from handrail.v1.decision_pb2 import ApprovalGiven, Choice
from handrail.v1.flow_service_pb2 import (
    CancelFlowRequest,
    CancelFlowResponse,
    CompensateFlowRequest,
    CompensateFlowResponse,
    GetFlowRequest,
    GetFlowResponse,
    ResolveEscalationRequest,
    ResolveEscalationResponse,
)
from payments.v1.payments_pb2 import LargeRefundGranted, RefundReversed
from tests.conftest import Connect
from tests.support.agents import AMOUNT, enriched, notified, paid, received, template
from tests.support.api import Api, Refusal, bearer, refused, running_api
from tests.support.dev import ROOT
from tests.support.fingerprint import fingerprint
from tests.support.mesh import Mesh, name_of_status
from tests.support.nats_server import NatsCluster
from tests.support.simulation import Simulation
from tests.support.waiting import PATIENCE

FLOWS = 16

ROUNDS = 60
"""After this many looks at a flow everybody does what they owe, and nothing else."""

RACED = """
name: refund
version: 1
starts_with: [payments.v1.ChargebackReceived]
started_by: [detection]
completes_with: [payments.v1.CustomerNotified]
deadline: 600s
steps:
  - {name: enrich, agent: enrichment, after: [payments.v1.ChargebackReceived], emits: [payments.v1.ChargebackEnriched],
     effect: NONE, timeout: 0.4s, retry: {max_attempts: 3, initial_backoff: 0.1s}, on_failure: ESCALATE}
  - {name: grant, agent: refunds, after: [payments.v1.ChargebackEnriched], emits: [payments.v1.LargeRefundGranted],
     effect: NONE, timeout: 20s}
  - {name: pay, agent: ledger, after: [payments.v1.LargeRefundGranted], emits: [payments.v1.RefundPaid],
     effect: UNDOABLE, timeout: 0.4s, retry: {max_attempts: 3, initial_backoff: 0.1s}, on_failure: COMPENSATE,
     undo: {timeout: 0.6s, retry: {max_attempts: 3, initial_backoff: 0.1s}, emits: [payments.v1.RefundReversed]}}
  - {name: notify, agent: notification, after: [payments.v1.RefundPaid, handrail.v1.ApprovalRefused],
     emits: [payments.v1.CustomerNotified], effect: IRREVERSIBLE, timeout: 20s, on_failure: COMPENSATE}
gates:
  - {name: large, on: payments.v1.LargeRefundGranted, approvers: {roles: [finance], quorum: 2}, expires_after: 0.6s,
     on_expiry: ESCALATE}
"""
"""Short times, so that answers, votes, time-outs and expiries come at about the same moment."""

EXPECTED_REFUSALS = {
    "ALREADY_VOTED",
    "APPROVAL_CLOSED",
    "CHOICE_NOT_OFFERED",
    "ESCALATION_NOT_FOUND",
    "ETAG_MISMATCH",
    "FLOW_BUSY",
    "WRONG_STATUS",
}
"""What who lost a race is told."""

VOTERS = ("anna", "ben", "cora", "dave")

pytestmark = pytest.mark.timeout(240)


@dataclass
class House:
    """Two coordinators on servers of their own, and a reader on each of the three."""

    cluster: NatsCluster
    coordinators: tuple[Api, Api]
    readers: tuple[FlowStore, ...]
    buses: tuple[Bus, ...]


@pytest.fixture
async def house(nats_cluster: NatsCluster, connect: Connect, tmp_path: Path) -> AsyncIterator[House]:
    buses = [await connect(server.settings("coordinator")) for server in (*nats_cluster.servers, *nats_cluster.servers)]
    await ensure_streams(buses[0], replicas=3)
    await Mesh(buses[0], Catalog(buses[0])).put(template(RACED))
    readers = tuple(FlowStore(bus, Catalog(bus)) for bus in buses[3:])
    running = [
        running_api(bus, tmp_path, replicas=3, holder=f"coordinator-{number}") for number, bus in enumerate(buses[:2])
    ]
    one, two = [await each.__aenter__() for each in running]
    yield House(nats_cluster, (one, two), readers, tuple(buses[3:]))
    # Together: on a cluster each takes seconds to end.
    await asyncio.gather(*(each.__aexit__(None, None, None) for each in running))


class Race:
    """One flow, and everybody who races in it: workers that answer at once and differently, people that vote, cancel
    and resolve at both coordinators, a coordinator that decides on what it saw a while ago.
    """

    def __init__(self, house: House, number: int, random: Random) -> None:
        self._house = house
        self._random = random
        self._number = number
        self._ghost = Simulation(template(RACED))
        self._rounds = 0
        self._moments: dict[str, float] = {}
        self.flow_id = ""

    async def run(self) -> None:
        """Race until the flow is over; some are compensated after that."""
        active = await self._house.readers[0].catalog.active("refund")
        bus = self._house.buses[self._number % 3]
        started = await start_flow.start(bus, active, source="detection", data=pack(received(f"cb-{self._number}")))
        self.flow_id = self._ghost.flow_id = started.flow_id
        while True:
            reader = self._random.choice(self._house.readers)
            history = await reader.read("refund", self.flow_id, at_least=started.sequence)
            flow = await reader.fold("refund", self.flow_id, history)
            self._ghost.flow = flow
            if is_final(flow):
                return
            self._rounds += 1
            moves = [*self._answers(flow), *self._undos(flow)]
            if not self._is_over:
                moves += [*self._hostile_answers(flow), *self._hostile_people(flow), *self._late_decisions(history)]
                moves = [move for move in moves if self._random.random() < 0.4]
            moves += [*self._votes(flow), *self._resolutions(flow)]
            self._random.shuffle(moves)
            for outcome in await asyncio.gather(*(move() for move in moves), return_exceptions=True):
                if isinstance(outcome, Refusal):
                    assert outcome.reason in EXPECTED_REFUSALS, outcome
                elif isinstance(outcome, BaseException) and not isinstance(outcome, AlreadyStored):
                    raise outcome
            await asyncio.sleep(0.02)

    # Agents.

    def _answers(self, flow: Flow) -> Iterator[Move]:
        for run in self._owed(flow):
            yield self._publishing(self._ghost.outcome(run, _answer(run)))

    def _hostile_answers(self, flow: Flow) -> Iterator[Move]:
        for run in self._owed(flow):
            yield self._publishing(self._ghost.outcome(run, _answer(run, other=True)))
            yield self._publishing(self._ghost.failed(run, "no answer"))
            yield self._publishing(self._ghost.progress(run, self._rounds))
            yield self._publishing(self._ghost.outcome(run, _answer(run), agent="mallory"))
            yield self._publishing(self._ghost.not_started(run))

    def _owed(self, flow: Flow) -> list[StepRun]:
        owed = [run for run in flow.runs.values() if run.state is RunState.OWED]
        return [run for run in owed if self._is_time(f"{run.step.name} {run.subject}", run.since, 0.7)]

    def _is_time(self, what: str, since: datetime | None, seconds: float) -> bool:
        """Whether it happens now: everything that is waited for comes when it comes, some of it too late."""
        if self._is_over or what not in self._moments:
            self._moments[what] = self._random.uniform(0, seconds)
        return self._is_over or (
            since is not None and (datetime.now(UTC) - since).total_seconds() > self._moments[what]
        )

    @property
    def _is_over(self) -> bool:
        """Whether it is time to bring the flow to its end."""
        return self._rounds > ROUNDS

    def _undos(self, flow: Flow) -> Iterator[Move]:
        for effect in flow.effects.values():
            if effect.deadline is not None:
                reversed_ = RefundReversed(chargeback_id="cb", transfer_id="t", reversal_id="r")
                yield self._publishing(self._ghost.undone(effect, reversed_))
                yield self._publishing(self._ghost.undo_failed(effect, "not now"))

    # People, at either coordinator.

    def _votes(self, flow: Flow) -> Iterator[Move]:
        for proposal in flow.proposals.values():
            if proposal.state is not ProposalState.PENDING:
                continue
            if not self._is_time(proposal.recorded.event_id, proposal.requested_at, 0.8):
                continue
            for api, voter in product(self._house.coordinators, VOTERS):
                seen = {"approval_id": qualified(flow, proposal.recorded.event_id), "digest": proposal.digest}
                if voter == "cora":
                    yield self._calling(
                        api,
                        "ApprovalService/RejectProposal",
                        RejectProposalRequest(**seen),
                        RejectProposalResponse,
                        voter,
                        "finance",
                    )
                else:
                    yield self._calling(
                        api,
                        "ApprovalService/ApproveProposal",
                        ApproveProposalRequest(**seen),
                        ApproveProposalResponse,
                        voter,
                        "finance",
                    )

    def _resolutions(self, flow: Flow) -> Iterator[Move]:
        for escalation in flow.escalations.values():
            for api in self._house.coordinators:
                choices = list(escalation.choices)
                choice = Choice.CHOICE_CANCEL if Choice.CHOICE_CANCEL in choices else self._random.choice(choices)
                if not self._is_over:
                    choice = self._random.choice(choices)
                request = ResolveEscalationRequest(
                    flow_id=flow.flow_id, escalation_id=escalation.escalation_id, choice=choice, reason="race"
                )
                yield self._calling(
                    api, "FlowService/ResolveEscalation", request, ResolveEscalationResponse, "olga", "operator"
                )

    def _hostile_people(self, flow: Flow) -> Iterator[Move]:
        if self._random.random() > 0.03:
            return
        about: dict[str, Any] = {"flow_id": flow.flow_id, "reason": "race", "request_id": str(uuid.uuid4())}
        one, two = self._random.sample(self._house.coordinators, 2)
        cancel, compensate = CancelFlowRequest(**about), CompensateFlowRequest(**about)
        yield self._calling(one, "FlowService/CancelFlow", cancel, CancelFlowResponse, "olga", "operator")
        yield self._calling(two, "FlowService/CompensateFlow", compensate, CompensateFlowResponse, "otto", "operator")

    # A coordinator that is behind, and a broker that does not hold it back.

    def _late_decisions(self, history: History) -> Iterator[Move]:
        behind = self._random.randrange(1, 5)
        if len(history) > behind:
            seen = fold(template(RACED), history[:-behind])
            entry = decide(seen, history[-1].time)
            if entry is not None:
                yield self._publishing(entry)

    def _publishing(self, entry: Entry) -> Move:
        bus = self._random.choice(self._house.buses)
        return lambda: bus.publish(entry.address.subject, entry.body)

    def _calling(self, api: Api, method: str, request: Any, answer: type[Any], person: str, role: str) -> Move:
        metadata = bearer(api.token(person, role))

        async def call() -> Refusal | None:
            done = asyncio.ensure_future(api.call(method, request, answer, metadata=metadata, timeout=PATIENCE))
            try:
                return await refused(done)
            except AssertionError:
                return None  # it was answered

        return call


Move = Callable[[], Awaitable[object]]


def _answer(run: StepRun, *, other: bool = False) -> Any:
    match run.step.name:
        case "enrich":
            return enriched("cb-other" if other else "cb-1")
        case "grant":
            granted = LargeRefundGranted(chargeback_id="cb-1", account_id="a", amount=AMOUNT, email="kim@example.com")
            granted.amount.units = 2_000 if other else 5_000
            return granted
        case "pay":
            return paid("t-other" if other else "t-1")
        case _:
            return notified("cb-other" if other else "cb-1")


@pytest.fixture
async def raced(house: House) -> Raced:
    seed = int(os.environ.get("RACE_SEED") or Random().randrange(10**6))
    print(f"RACE_SEED={seed} races the same way, as far as machines do")
    races = [Race(house, number, Random(seed + number)) for number in range(FLOWS)]
    await asyncio.gather(*(race.run() for race in races))
    # The coordinators may still be at it: what they store from here on is left out.
    info = await house.buses[0].request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    return Raced(house, int(info["state"]["last_seq"]), [race.flow_id for race in races])


@dataclass
class Raced:
    """Flows after the race, and the last sequence that counts."""

    house: House
    last: int
    flow_ids: list[str]

    async def read(self, reader: FlowStore, flow_id: str) -> History:
        """A flow as this reader's server has it."""
        return await reader.read("refund", flow_id, at_least=self.last, up_to=self.last)


async def test_p4_all_readers_fold_the_same_whoever_raced(raced: Raced) -> None:
    house, folds = raced.house, {}
    races: Counter[str] = Counter()
    for flow_id in raced.flow_ids:
        histories = [await raced.read(reader, flow_id) for reader in house.readers]
        assert histories[0] == histories[1] == histories[2]
        prefixes = fold_every_prefix(histories[0])
        check_prefixes(prefixes, histories[0])
        await check_coordinators(house, flow_id, prefixes, Random(flow_id))
        end = prefixes[-1]
        assert is_final(end)
        check_releases(end, histories[0])
        folds[flow_id] = fingerprint(end)
        races.update(recorded.type for recorded in histories[0])
        races["void"] += len(end.void)
        races[name_of_status(end)] += 1
    # Another process, with other hashes, in another place of the world.
    assert fold_elsewhere(house.cluster.servers[2].url) == folds
    # It was a race.
    assert races["void"] > FLOWS
    assert races["handrail.v1.ApprovalGiven"] + races["handrail.v1.ApprovalRefused"] > 1, races
    assert races["handrail.v1.StepTimedOut"] + races["handrail.v1.FlowHalted"] + races["handrail.v1.Escalated"] > 1


def fold_every_prefix(history: Sequence[Recorded]) -> list[Flow]:
    """The flow after each of its messages, each folded from the beginning."""
    return [fold(template(RACED), history[:length]) for length in range(1, len(history) + 1)]


def check_prefixes(prefixes: Sequence[Flow], history: Sequence[Recorded]) -> None:
    """Who folds message by message comes to the same, and changes nothing that he had."""
    flow, kept = begin(template(RACED)), []
    for recorded in history:
        flow = evolve(flow, recorded)
        kept.append(flow)
    assert [fingerprint(each) for each in kept] == [fingerprint(each) for each in prefixes]


async def check_coordinators(house: House, flow_id: str, prefixes: Sequence[Flow], random: Random) -> None:
    """Both coordinators say the same of the flow, as of any moment, and what the fold says."""
    for prefix in (prefixes[-1], *random.sample(prefixes, min(4, len(prefixes)))):
        request = GetFlowRequest(flow_id=flow_id, as_of_sequence=prefix.last_sequence)
        one, two = [
            await api.call("FlowService/GetFlow", request, GetFlowResponse, metadata=bearer(api.token("vera")))
            for api in house.coordinators
        ]
        assert one == two
        assert one.flow.status == status(prefix)
        assert one.flow.etag == prefix.etag


def check_releases(flow: Flow, history: Sequence[Recorded]) -> None:
    """No release counts before two people have said yes: counted here from the votes alone."""
    voters: dict[str, set[str]] = defaultdict(set)
    for recorded in history:
        if recorded.type == ApprovalGiven.DESCRIPTOR.full_name:
            vote = ApprovalGiven.FromString(recorded.event.data.value)
            voters[vote.proposal_id].add(vote.voter)
        elif recorded.kind is Kind.RELEASED and recorded.sequence not in flow.void:
            assert len(voters[recorded.event_id]) >= 2


def fold_elsewhere(server: str) -> dict[str, str]:
    """What another process folds, with hashes and a time zone of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fingerprint", server],
        env={**os.environ, "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"},
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    folded: dict[str, str] = json.loads(done.stdout)
    return folded
