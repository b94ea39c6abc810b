"""The history checker finds every fault that is planted in a right history, and nothing in the right one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest
from google.protobuf.message import Message

from handrail.cli.verify.acknowledged import CANCEL, OK, Call, parse
from handrail.cli.verify.check import Check
from handrail.cli.verify.finding import Breach, Finding, counted
from handrail.cli.verify.plan import Plan
from handrail.cli.verify.record import Stored
from handrail.coordinator.api.views import flow_view
from handrail.mesh.flow import RunState
from handrail.mesh.wire.envelope import Entry, pack
from handrail.mesh.wire.subjects import Kind
from handrail.v1.decision_pb2 import ApprovalGiven, FlowStatus, HaltMode
from handrail.v1.failure_pb2 import StepCompleted
from handrail.v1.flow_service_pb2 import Flow
from payments.v1.payments_pb2 import RefundReversed
from tests.support.agents import CHAIN, enriched, notified, paid, received, template
from tests.support.simulation import FLOW_ID, Simulation

GATE = """gates:
  - name: look
    on: payments.v1.ChargebackEnriched
    approvers: {roles: [finance], quorum: 2, not_the_requester: true}
    expires_after: 600s
"""
GRACE = timedelta(minutes=2)


@dataclass
class Story:
    """A history, what callers were told, and how the coordinator shows the flow, some time later."""

    simulation: Simulation
    stored: list[Stored]
    shown: Flow
    calls: list[Call] = field(default_factory=list)
    later: timedelta = timedelta(seconds=1)

    def find(self) -> list[Finding]:
        check = Check({("refund", 1): Plan(self.simulation.template.proto)})
        for each in self.stored:
            check.take(each)
        found = [*check.judge(), *check.keep(self.calls), *check.compare([self.shown])]
        return [*found, *check.hung([self.shown], now=self.simulation.now + self.later, grace=GRACE)]

    def sequence(self, kind: Kind, type_name: str = "") -> int:
        """Where the last message of a kind, and of a type, is."""
        return max(
            each.sequence for each in self.simulation.history if each.kind is kind and each.type.endswith(type_name)
        )

    def without(self, sequence: int) -> None:
        """A message is gone, and what came behind it moved up: no gap gives it away."""
        self.stored = [
            replace(each, sequence=each.sequence - (each.sequence > sequence))
            for each in self.stored
            if each.sequence != sequence
        ]

    def add(self, entry: Entry) -> None:
        """One more message, whatever the stream's rules say."""
        last = self.stored[-1]
        self.stored.append(Stored(last.sequence + 1, entry.address.subject, entry.body, last.time))
        self.shown.last_sequence = last.sequence + 1

    def change(self, sequence: int, message: Message) -> None:
        """A message had other data."""
        recorded = self.simulation.history[sequence - 1]
        event = type(recorded.event).FromString(recorded.event.SerializeToString())
        event.data.CopyFrom(pack(message))
        self.stored[sequence - 1] = replace(self.stored[sequence - 1], body=event.SerializeToString())


def call(op: str, **more: object) -> Call:
    given = {"op": op, "outcome": OK, "at": 1.0, "ended": 2.0, "by": "olga", "flow_type": "refund", "flow_id": FLOW_ID}
    return Call(**{**given, **more})  # type: ignore[arg-type]


def play(*acts: Callable[[Simulation], None]) -> Story:
    simulation = Simulation(template(CHAIN + GATE))
    simulation.say(simulation.start(received(), requester="kim"))
    for act in acts:
        act(simulation)
    stored = [Stored(each.sequence, each.address.subject, each.event.SerializeToString(), each.time)
              for each in simulation.history]  # fmt: skip
    return Story(simulation, stored, flow_view(simulation.flow))


def answer(message: Message) -> Callable[[Simulation], None]:
    def act(simulation: Simulation) -> None:
        run = next(run for run in simulation.flow.runs.values() if run.state is RunState.OWED)
        simulation.say(simulation.outcome(run, message))

    return act


def vote(*voters: str) -> Callable[[Simulation], None]:
    def act(simulation: Simulation) -> None:
        [proposal] = simulation.flow.proposals.values()
        for voter in voters:
            simulation.say(simulation.vote(proposal, voter, ["finance"]))

    return act


def halt(mode: HaltMode.ValueType) -> Callable[[Simulation], None]:
    return lambda simulation: void(simulation.say(simulation.halt(mode, "olga", "so")))


def not_started(simulation: Simulation) -> None:
    run = next(run for run in simulation.flow.runs.values() if run.state is RunState.OWED)
    simulation.say(simulation.not_started(run))


def undo(simulation: Simulation) -> None:
    [effect] = [each for each in simulation.flow.effects.values() if each.deadline is not None]
    simulation.say(simulation.undone(effect, RefundReversed(chargeback_id="cb-1", transfer_id="t", reversal_id="r")))


def void(_: object) -> None: ...


PROPOSED = (answer(enriched()),)
RELEASED = (*PROPOSED, vote("anna", "ben"))
PAID = (*RELEASED, answer(paid()))
TOLD = (*PAID, answer(notified()))
CANCELLED = (*PAID, halt(HaltMode.HALT_MODE_CANCEL), not_started, undo)
COMPENSATED = (*PAID, halt(HaltMode.HALT_MODE_COMPENSATE), not_started, undo)

RIGHT: Sequence[tuple[str, Sequence[Callable[[Simulation], None]], FlowStatus.ValueType]] = (
    ("proposed", PROPOSED, FlowStatus.FLOW_STATUS_WAITING_APPROVAL),
    ("released", RELEASED, FlowStatus.FLOW_STATUS_RUNNING),
    ("paid", PAID, FlowStatus.FLOW_STATUS_RUNNING),
    ("told", TOLD, FlowStatus.FLOW_STATUS_COMPLETED),
    ("cancelled", CANCELLED, FlowStatus.FLOW_STATUS_CANCELLED),
    ("compensated", COMPENSATED, FlowStatus.FLOW_STATUS_COMPENSATED),
)


@pytest.mark.parametrize("acts,status", [each[1:] for each in RIGHT], ids=[each[0] for each in RIGHT])
def test_nothing_is_found_in_a_right_history(
    acts: Sequence[Callable[[Simulation], None]], status: FlowStatus.ValueType
) -> None:
    story = play(*acts)
    assert story.shown.status == status
    story.calls.append(call("start", key="cb-1", event_id=story.simulation.history[0].event_id, sequence=1))
    assert story.find() == []


def lost_start(_: Story) -> Story:
    story = play()
    story.calls.append(call("start", flow_id="f" * 32))
    return story


def a_gap(_: Story) -> Story:
    story = play(*TOLD)
    story.stored = [each for each in story.stored if each.sequence != 2]
    return story


def one_key_two_flows(_: Story) -> Story:
    story = play()
    other = Simulation(template(CHAIN + GATE), flow_id="e" * 32)
    other.say(other.start(received()))
    [first] = other.history
    story.stored.append(
        Stored(2 + len(story.stored) - 1, first.address.subject, first.event.SerializeToString(), first.time)
    )
    story.calls += [call("start", key="cb-1"), call("start", key="cb-1", flow_id="e" * 32)]
    return story


def begun_twice(story: Story) -> None:
    story.add(story.simulation.start(received(), agent="detection"))


def answered_twice(story: Story) -> None:
    run = next(run for run in story.simulation.flow.runs.values() if run.step.name == "pay")
    story.add(story.simulation.outcome(run, StepCompleted()))


def stored_twice(story: Story) -> None:
    story.stored.append(replace(story.stored[-1], sequence=story.stored[-1].sequence + 1))


def a_vote_is_gone(story: Story) -> None:
    story.without(story.sequence(Kind.DECISION, "ApprovalGiven"))


def anothers_vote(name: str) -> Callable[[Story], None]:
    def plant(story: Story) -> None:
        sequence = story.sequence(Kind.DECISION, "ApprovalGiven")
        given = ApprovalGiven.FromString(story.simulation.history[sequence - 1].event.data.value)
        given.voter = name
        story.change(sequence, given)

    return plant


def other_bytes(story: Story) -> None:
    story.change(story.sequence(Kind.RELEASED), enriched("cb-2"))


def nobody_asked(story: Story) -> None:
    for name in ("ApprovalGiven", "ApprovalRequested"):
        while any(name in each.subject for each in story.stored):
            story.without(next(each.sequence for each in story.stored if name in each.subject))


def begun_after_the_halt(story: Story) -> None:
    """The ledger pays late, and the customer is told of it."""
    simulation = story.simulation
    run = next(run for run in simulation.flow.runs.values() if run.step.name == "pay")
    simulation.coordinator = False
    simulation.say(simulation.outcome(run, paid()))
    story.add(simulation.outcome(run, paid()))
    following = next(run for run in simulation.flow.runs.values() if run.step.name == "notify")
    story.add(simulation.outcome(following, notified()))


def undone_never(story: Story) -> None:
    story.without(story.sequence(Kind.UNDONE))


def acknowledged(op: str, **more: object) -> Callable[[Story], None]:
    return lambda story: story.calls.append(call(op, **more))


def a_vote_does_not_count(story: Story) -> None:
    del story.shown.approvals[0].votes[:]


def shown_otherwise(story: Story) -> None:
    story.shown.status = FlowStatus.FLOW_STATUS_COMPLETED


def overdue(story: Story) -> None:
    story.later = timedelta(hours=1)


def nothing_is_owed(story: Story) -> None:
    del story.shown.expectations[:]
    story.later = GRACE + timedelta(seconds=1)


def a_decision_is_owed(story: Story) -> None:
    nothing_is_owed(story)
    owed = story.shown.expectations.add(what="a decision on what is next", by_agent="coordinator")
    owed.due_time.FromDatetime(story.simulation.now + timedelta(days=1))


def an_undo_is_owed_when_its_turn_comes(story: Story) -> None:
    nothing_is_owed(story)
    story.shown.expectations.add(what="the undo of it, when its turn comes", by_agent="ledger", step="pay")


def past_its_deadline(story: Story) -> None:
    story.later = timedelta(days=2)
    for owed in story.shown.expectations:
        owed.ClearField("due_time")
        owed.by_roles.append("finance")


def changed(acts: Iterable[Callable[[Simulation], None]], plant: Callable[[Story], None]) -> Callable[[Story], Story]:
    def make(_: Story) -> Story:
        story = play(*acts)
        plant(story)
        return story

    return make


HALTED = (*RELEASED, halt(HaltMode.HALT_MODE_CANCEL))

PLANTED: Sequence[tuple[str, Callable[[Story], Story], Breach, str]] = (
    ("a start is lost", lost_start, Breach.LOST, "no such flow exists"),
    ("a message is gone", a_gap, Breach.LOST, "sequences 2 to 2 are missing"),
    ("a key began two flows", one_key_two_flows, Breach.DOUBLED, "key cb-1 started"),
    ("two first events", changed(PAID, begun_twice), Breach.DOUBLED, "a second first event"),
    ("two answers", changed(PAID, answered_twice), Breach.DOUBLED, "a second answer of step pay"),
    ("one subject twice", changed(TOLD, stored_twice), Breach.DOUBLED, "2 messages on one subject"),
    ("a vote is missing", changed(RELEASED, a_vote_is_gone), Breach.WRONG, "without its quorum"),
    ("one person in two spellings", changed(RELEASED, anothers_vote(" Anna")), Breach.WRONG, "without its quorum"),
    ("the requester votes", changed(RELEASED, anothers_vote("Kim")), Breach.WRONG, "without its quorum"),
    ("other bytes are released", changed(RELEASED, other_bytes), Breach.WRONG, "not with the proposed bytes"),
    ("nobody was asked", changed(RELEASED, nobody_asked), Breach.WRONG, "nobody was asked"),
    ("a step begins after a halt", changed(HALTED, begun_after_the_halt), Breach.WRONG, "but began although"),
    ("an effect stands", changed(COMPENSATED, undone_never), Breach.WRONG, "RefundPaid stands"),
    ("a vote is lost", changed(PROPOSED, acknowledged("approve", subject="0" * 32)), Breach.LOST, "not in the stream"),
    ("a cancel is lost", changed(PAID, acknowledged(CANCEL)), Breach.LOST, "not in the stream"),
    ("a cancel is undone", changed(TOLD, acknowledged("compensate")), Breach.LOST, "not in the stream"),
    ("an answer is lost", changed(TOLD, acknowledged("resolve", subject="0" * 32)), Breach.LOST, "not in the stream"),
    (
        "a vote does not count",
        changed((*PROPOSED, vote("anna")), a_vote_does_not_count),
        Breach.LOST,
        "the yes of anna",
    ),
    ("it is shown otherwise", changed(PAID, shown_otherwise), Breach.WRONG, "it is shown as COMPLETED"),
    ("a step is overdue", changed(PAID, overdue), Breach.HUNG, "overdue since"),
    ("nothing is owed", changed(PAID, nothing_is_owed), Breach.HUNG, "nothing"),
    ("a decision is owed", changed(PAID, a_decision_is_owed), Breach.HUNG, "a decision on what is next"),
    ("an undo is owed", changed(HALTED, an_undo_is_owed_when_its_turn_comes), Breach.HUNG, "when its turn comes"),
    ("no person was told", changed(PROPOSED, past_its_deadline), Breach.HUNG, "past the flow's deadline"),
)


@pytest.mark.parametrize("plant,breach,text", [each[1:] for each in PLANTED], ids=[each[0] for each in PLANTED])
def test_a_planted_fault_is_found(plant: Callable[[Story], Story], breach: Breach, text: str) -> None:
    found = plant(play()).find()
    assert [each for each in found if each.breach is breach and text in each.text], found
    assert counted(found)[breach] >= 1


def test_a_cancel_that_was_acknowledged_does_not_end_as_completed() -> None:
    story = play(*TOLD)
    story.add(story.simulation.halt(HaltMode.HALT_MODE_CANCEL, "olga", "so"))
    story.calls.append(call(CANCEL))
    [found] = story.find()
    assert (found.breach, found.text) == (Breach.LOST, "cancel by olga was acknowledged, but the flow is COMPLETED")


def test_what_strangers_store_is_in_nobodys_way() -> None:
    story = play(*TOLD)
    last = story.stored[-1]
    for number, subject in enumerate(("flow.refund", "flow.refund.x.y.z.a.b", last.subject.replace("event", "other"))):
        story.stored.append(Stored(last.sequence + 1 + number, subject, b"\xff\x00", last.time))
    assert story.find() == []


def test_a_line_of_a_history_is_read_as_it_was_written() -> None:
    made = call("approve", subject="1" * 32, detail="yes")
    assert parse(made.line()) == made


@pytest.mark.parametrize(
    "line",
    ['{"op": "start"}', "[]", '{"op": 1, "outcome": "ok", "at": 1, "ended": 1, "by": "a", "flow_type": "b"}', "x"],
)
def test_what_is_no_call_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse(line)
