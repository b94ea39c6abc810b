"""One flow in memory: a write-once stream, a clock that the test moves, scripted agents and people, and the
coordinator's real decisions. All messages pass through their serialized form.

Unlike the kit for real servers and `handrail.testing`, it has no broker, no event loop and no shell. A test can store
each message itself, including messages that no agent would send, and try thousands of flows.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.message import Message

from handrail.coordinator.decide import decide, messages, two_persons
from handrail.coordinator.decide.timers import timers
from handrail.mesh.flow import Effect, Flow, Proposal, ProposalState, StepRun
from handrail.mesh.flow.absence import ABSENT_AFTER, Absence
from handrail.mesh.flow.acts import OPERATOR, PendingAct
from handrail.mesh.flow.queue import Queue
from handrail.mesh.fold import begin, evolve, fold, is_final
from handrail.mesh.fold.attempts import next_run
from handrail.mesh.template import Template
from handrail.mesh.wire import envelope, ids
from handrail.mesh.wire.envelope import Entry, Recorded, pack, type_of
from handrail.mesh.wire.subjects import COORDINATOR, Address, Kind
from handrail.v1.act_pb2 import ActConfirmation
from handrail.v1.decision_pb2 import (
    ActWithdrawn,
    ApprovalCause,
    ApprovalGiven,
    ApprovalReassigned,
    ApprovalRefused,
    Choice,
    FlowMigrated,
    HaltMode,
    Resolved,
    StepReopened,
)
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import StepFailed, StepNotStarted, StepProgress

BEGINNING = datetime(2030, 1, 1, tzinfo=UTC)
FLOW_ID = ids.flow_id_from_key("test", "one")

_DECISIONS = 1_000
"""After this many decisions in a row the coordinator is considered to be in a loop. Parallel undos take many."""


class Taken(Exception):
    """The subject already holds a message."""


class Simulation:
    """One flow of a template. `on_stored` is called for each stored message; `versions` are those it can move to."""

    def __init__(self, template: Template, *, flow_id: str = FLOW_ID) -> None:
        self.versions = {template.version: template}
        self.flow_id = flow_id
        self.now = BEGINNING
        self.absences: list[Absence] = []
        self.queues: dict[str, Queue] = {}
        self._away_since: datetime | None = None
        self.history: list[Recorded] = []
        self.flow: Flow = begin(template)
        self.on_stored: Callable[[Recorded], None] = lambda recorded: None
        self._subjects: set[str] = set()
        self._begun_with = template

    @property
    def coordinator(self) -> bool:
        """Whether a coordinator is running. When it is back, the length of its absence is known."""
        return self._away_since is None

    @coordinator.setter
    def coordinator(self, runs: bool) -> None:
        away = self._away_since
        self._away_since = None if runs else away or self.now
        if runs and away is not None and self.now - away > ABSENT_AFTER:
            self.absences.append(Absence(away, self.now))

    @property
    def template(self) -> Template:
        """The version that the flow is pinned to."""
        return self.flow.template

    def folded(self) -> Flow:
        """The flow folded from everything stored."""
        return fold(self._begun_with, self.history, self.versions)

    # The stream.

    def store(self, entry: Entry) -> Recorded:
        """Appends a message. Raises `Taken` if its subject already holds one."""
        subject = entry.address.subject
        if subject in self._subjects:
            raise Taken(subject)
        self._subjects.add(subject)
        recorded = envelope.decode(subject, entry.body, sequence=len(self.history) + 1, time=self.now)
        self.history.append(recorded)
        self.flow = evolve(self.flow, recorded, self.versions)
        self.on_stored(recorded)
        return recorded

    def say(self, entry: Entry) -> Recorded:
        """Appends a message, and lets the coordinator decide on it."""
        recorded = self.store(entry)
        self.settle()
        return recorded

    # The coordinator.

    def settle(self) -> None:
        """Lets the coordinator, if it is running, decide until it has nothing left to decide.

        Each decision must count in the state it was made on; otherwise it would be made again forever.
        """
        if not self.coordinator:
            return
        for _ in range(_DECISIONS):
            entry = decide(self.flow, self.now, self.absences, self.queues)
            if entry is None:
                assert not [name for name, due in timers(self.flow).items() if due <= self.now], "a timer that is hot"
                return
            recorded = self.store(entry)
            void = self.flow.void.get(recorded.sequence)
            if void is not None:
                raise AssertionError(f"the coordinator decided {recorded.type}, which is void: {void.text}")
        raise AssertionError(f"the coordinator comes to no end: {self.history[-1].type}")

    def wait(self, duration: timedelta) -> None:
        """Lets time pass; the coordinator looks at the flow whenever a timer is due."""
        self.settle()
        target = self.now + duration
        while self.coordinator and (due := self.next_timer()) is not None and due <= target:
            self.now = due
            before = len(self.history)
            self.settle()
            assert len(self.history) > before, "a timer fired, and nothing was due"
        self.now = target

    def to_next_timer(self) -> None:
        """Lets time pass until the next timer is due."""
        due = self.next_timer()
        assert due is not None
        self.wait(due - self.now)

    def take_nothing(self, agent: str, *, idle: timedelta = timedelta()) -> None:
        """The agent receives nothing new from here on. With `idle` zero, it counts as at work."""
        self.queues[agent] = Queue(len(self.history), idle=idle)

    def hand_out(self, agent: str) -> None:
        """The agent receives the waiting messages and new ones again."""
        self.queues[agent] = Queue(sys.maxsize)

    def next_timer(self) -> datetime | None:
        """When the coordinator will look at the flow next."""
        return min(timers(self.flow).values(), default=None)

    def is_silent(self) -> bool:
        """Whether nothing would ever happen to the flow again although it has not ended."""
        if self.flow.first is None or is_final(self.flow) or self.flow.escalations:
            return False
        waits = [p for p in self.flow.proposals.values() if p.state is ProposalState.PENDING and not p.next_expiry]
        return not waits and self.next_timer() is None

    # Agents.

    def start(self, message: Message, *, agent: str = COORDINATOR, requester: str = "") -> Entry:
        """The first event."""
        event = self._event(ids.start_id(self.flow_id), agent, message)
        event.requester = requester
        event.output_total = 1
        return self._entry(Kind.EVENT, agent, event)

    def outcome(
        self,
        run: StepRun,
        message: Message,
        *,
        agent: str = "",
        index: int = 0,
        total: int = 1,
        number: int | None = None,
        kind: Kind | None = None,
    ) -> Entry:
        """An output of a step run: a proposal where its type is gated, unless `kind` says otherwise."""
        number = run.run if number is None else number
        event_id = ids.outcome_id(self.flow_id, run.step.name, run.root, number, index)
        event = self._of_run(event_id, run, message, agent)
        event.run, event.output_index, event.output_total = number, index, total
        gated = bool(self.template.gates_on(message.DESCRIPTOR.full_name))
        return self._entry(kind or (Kind.PROPOSAL if gated else Kind.EVENT), event.source, event)

    def failed(
        self,
        run: StepRun,
        text: str,
        *,
        agent: str = "",
        error_class: str = "Broken",
        retryable: bool = True,
        outcome_unknown: bool = False,
    ) -> Entry:
        """The running attempt failed."""
        message = StepFailed(error_class=error_class, text=text, retryable=retryable, outcome_unknown=outcome_unknown)
        return self._entry(Kind.FAILURE, agent or run.step.agent, self._of_attempt(run, message, agent))

    def not_started(self, run: StepRun) -> Entry:
        """The running attempt was not started."""
        return self._entry(Kind.FAILURE, run.step.agent, self._of_attempt(run, StepNotStarted(text="halted")))

    def progress(self, run: StepRun, counter: int, *, began: bool = False, handed_back: bool = False) -> Entry:
        """The n-th heartbeat of the attempt."""
        event_id = ids.progress_id(self.flow_id, run.step.name, run.root, run.run, run.attempt, counter)
        message = StepProgress(counter=counter, began=began, handed_back=handed_back)
        return self._entry(Kind.PROGRESS, run.step.agent, self._of_run(event_id, run, message))

    def undone(self, effect: Effect, message: Message, *, agent: str = "") -> Entry:
        """The running undo of an effect succeeded."""
        event = self._of_undo(ids.undone_id(self.flow_id, effect.recorded.event_id), effect, message, agent)
        event.output_total = 1
        return self._entry(Kind.UNDONE, event.source, event)

    def undo_failed(self, effect: Effect, text: str, *, retryable: bool = True) -> Entry:
        """The running undo of an effect failed."""
        about = effect.recorded
        message = StepFailed(error_class="Broken", text=text, retryable=retryable, undo_of=about.event_id)
        event_id = ids.attempt_id(
            "undo-failure", self.flow_id, effect.step.name, about.event_id, about.event.run, effect.attempt
        )
        return self._entry(Kind.FAILURE, effect.step.agent, self._of_undo(event_id, effect, message))

    # People.

    def vote(
        self,
        proposal: Proposal,
        voter: str,
        roles: Iterable[str],
        *,
        approve: bool = True,
        digest: str = "",
        on_behalf_of: str = "",
    ) -> Entry:
        """A person's vote."""
        vote = ApprovalGiven() if approve else ApprovalRefused(proposal=proposal.recorded.event.data)
        vote.proposal_id, vote.digest = proposal.recorded.event_id, digest or proposal.digest
        vote.voter, vote.cause = voter, ApprovalCause.APPROVAL_CAUSE_VOTE
        vote.roles.extend(roles)
        vote.on_behalf_of = on_behalf_of
        return messages.decision(self.flow, vote, about=f"{vote.proposal_id}:{voter}", now=self.now)

    def reassign(self, proposal: Proposal, by: str, roles: Iterable[str], *, gate: str = "", digest: str = "") -> Entry:
        """A person lets other roles vote at a gate, the first one that asks if none is named."""
        message = ApprovalReassigned(
            proposal_id=proposal.recorded.event_id,
            digest=digest or proposal.digest,
            gate=gate or proposal.asks[0].gate.name,
            roles=roles,
            by=by,
        )
        return messages.decision(self.flow, message, about=f"{message.proposal_id}:{by}", now=self.now)

    def halt(
        self, mode: HaltMode.ValueType, by: str, reason: str, *, to_step: str = "", keep_effects: bool = False
    ) -> Entry:
        """A person halts the flow."""
        return messages.halted(self.flow, mode, reason, self.now, by=by, to_step=to_step, keep_effects=keep_effects)

    def migrate(self, version: int, by: str) -> Entry:
        """A person moves the flow to another version."""
        message = FlowMigrated(from_version=self.template.version, to_version=version, by=by, reason="as agreed")
        return messages.decision(self.flow, message, about=str(version), now=self.now)

    def reopen(self, run: StepRun, by: str) -> Entry:
        """A person repeats a step."""
        message = StepReopened(step=run.step.name, root=run.root, run=next_run(run), by=by)
        return messages.decision(self.flow, message, about=run.root, now=self.now, step=run.step.name, root=run.root)

    def resolve(self, escalation_id: str, choice: Choice.ValueType, by: str, reason: str = "as agreed") -> Entry:
        """A person answers an escalation."""
        message = Resolved(escalation_id=escalation_id, choice=choice, by=by, reason=reason)
        return messages.decision(self.flow, message, about=escalation_id, now=self.now)

    def ask(self, entry: Entry) -> Entry:
        """What the coordinator records of a person's decision: the request for a second person, if one is needed."""
        asked = two_persons.requested(self.flow, entry, self.now)
        assert isinstance(asked, Entry), "the same person asked for the same, and it waits"
        return asked

    def act(self) -> PendingAct:
        """The newest act that needs two persons."""
        return list(self.flow.acts.values())[-1]

    def confirm(
        self,
        act: PendingAct,
        by: str,
        roles: Iterable[str] = (OPERATOR,),
        *,
        digest: str = "",
        reason: str | None = None,
        done: Entry | None = None,
    ) -> Entry:
        """A second person confirms an act, or breaks the glass with a reason. What is `done` may be something else."""
        entry = done or messages.packed_decision(self.flow, act.data, about=act.act_id, now=self.now)
        entry.event.confirmation.CopyFrom(
            ActConfirmation(
                act_id=act.act_id,
                digest=digest or act.digest,
                by=by,
                roles=roles,
                break_glass=reason is not None,
                reason=reason or "",
            )
        )
        return entry

    def withdraw(self, act: PendingAct, by: str) -> Entry:
        """A person withdraws an act."""
        message = ActWithdrawn(act_id=act.act_id, by=by, reason="as agreed")
        return messages.decision(self.flow, message, about=act.act_id, now=self.now)

    def _of_attempt(self, run: StepRun, message: Message, agent: str = "") -> Event:
        event_id = ids.attempt_id("failure", self.flow_id, run.step.name, run.root, run.run, run.attempt)
        return self._of_run(event_id, run, message, agent)

    def _of_run(self, event_id: str, run: StepRun, message: Message, agent: str = "") -> Event:
        event = self._event(event_id, agent or run.step.agent, message)
        event.step, event.root, event.run, event.attempt = run.step.name, run.root, run.run, run.attempt
        event.causation_id = run.trigger.event_id
        return event

    def _of_undo(self, event_id: str, effect: Effect, message: Message, agent: str = "") -> Event:
        event = self._event(event_id, agent or effect.step.agent, message)
        event.step, event.root = effect.step.name, effect.recorded.event_id
        event.run, event.attempt = effect.recorded.event.run, effect.attempt
        return event

    def _event(self, event_id: str, source: str, message: Message) -> Event:
        return Event(
            event_id=event_id,
            source=source,
            flow_type=self.template.name,
            flow_id=self.flow_id,
            template_version=self.template.version,
            data=pack(message),
        )

    def _entry(self, kind: Kind, agent: str, event: Event) -> Entry:
        address = Address(self.template.name, self.flow_id, kind, agent, event.event_id, type_of(event.data))
        return Entry(address, event)
