"""The state that the messages of one flow lead to: facts, answers, effects, and what is owed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from handrail.cli.verify.approvals import Approvals
from handrail.cli.verify.plan import COMPLETED, Plan, Plans, has_effect
from handrail.cli.verify.record import COORDINATOR, Message
from handrail.v1.decision_pb2 import (
    ApprovalRefused,
    Choice,
    Escalated,
    FlowHalted,
    FlowMigrated,
    Resolved,
    RuleTripped,
    StepReopened,
)
from handrail.v1.template_pb2 import Effect, Step

REFUSED = ApprovalRefused.DESCRIPTOR.full_name
_UNFORESEEN = "an agent did what the template does not foresee"
_ACCOUNTED = (Choice.CHOICE_MARK_UNDONE, Choice.CHOICE_ACCEPT)

Run = tuple[str, str]
"""A step run: the step's name, and its root."""


@dataclass
class Account:
    """One flow, its messages added in stream order. Create one with `account`."""

    flow_type: str
    flow_id: str
    plan: Plan | None = None
    messages: list[Message] = field(default_factory=list)
    first: Message | None = None
    facts: dict[str, Message] = field(default_factory=dict)
    """The facts by event id: the first event, answers that no gate guards, released proposals."""
    answers: dict[tuple[str, str, int, int], Message] = field(default_factory=dict)
    """The answers of steps, by step, root, run and index; proposals among them."""
    second: list[Message] = field(default_factory=list)
    """Repeated first events and answers."""
    undone: dict[str, Message] = field(default_factory=dict)
    """Reports of successful undos, by the event undone."""
    accounted: set[str] = field(default_factory=set)
    """What a person has taken responsibility for: ids of effects, roots of runs."""
    approvals: Approvals = field(default_factory=Approvals)
    reopened: dict[Run, int] = field(default_factory=dict)
    unsure: str = ""
    """Why the messages alone don't determine the flow's standing; empty if they do."""
    _escalated: dict[str, str] = field(default_factory=dict)

    def decisions(self, *messages: type) -> Iterator[Message]:
        """Returns the decisions of these types, in stream order."""
        names = {each.DESCRIPTOR.full_name for each in messages}  # type: ignore[attr-defined]
        return (each for each in self.messages if each.kind == "decision" and each.type in names)

    def step_of(self, message: Message) -> Step | None:
        """Returns the step of a message; None if the plan lacks it."""
        return None if self.plan is None else self.plan.steps.get(message.event.step)

    def effects(self) -> list[Message]:
        """Returns the answers of steps with an effect, in stream order."""
        found = [each for each in self.answers.values() if (step := self.step_of(each)) and has_effect(step)]
        return sorted(found, key=lambda each: each.sequence)

    def standing_effects(self, up_to: int) -> list[Message]:
        """Returns the undoable effects that were neither undone by then nor accounted for by a person."""
        return [
            each
            for each in self.effects()
            if each.sequence <= up_to
            and self._undoable(each)
            and not (each.event_id in self.undone and self.undone[each.event_id].sequence <= up_to)
            and each.event_id not in self.accounted
        ]

    def triggered_at(self, message: Message) -> int:
        """Returns the sequence of the trigger of an answer's run; for a join, that of its newest input."""
        event = message.event
        if event.root in self.facts:
            return self.facts[event.root].sequence
        if event.root in self.approvals.refusals:
            return self.approvals.refusals[event.root].sequence
        step = self.step_of(message)
        inputs = {each.type for each in step.after_all} if step is not None else set()
        earlier = [each.sequence for each in self.facts.values() if each.type in inputs]
        return max((each for each in earlier if each < message.sequence), default=0)

    def is_complete(self, up_to: int) -> bool:
        """Tells whether by then a completing fact existed, and every triggered run had answered."""
        if self.plan is None or self.first is None:
            return False
        facts = [each for each in self.facts.values() if each.sequence <= up_to]
        if not any(each.type in self.plan.template.completes_with for each in facts):
            return False
        settled = self.approvals.all_decided(up_to) and not self._has_consequence_ahead(up_to)
        return settled and not any(self.owed(up_to))

    def owed(self, up_to: int) -> Iterator[Run]:
        """Yields the step runs that were triggered by then, and had not answered in full."""
        if self.plan is None:
            return
        triggers = [*self.facts.values(), *self.approvals.refusals.values()]
        for trigger in triggers:
            if trigger.sequence <= up_to:
                for step in self.plan.waiting_for(trigger.type):
                    if not self._answered(step.name, trigger.event_id, up_to):
                        yield step.name, trigger.event_id
        for step in self.plan.joins():
            roots = {root for name, root, _, _ in self.answers if name == step.name}
            if self._is_joined(step, up_to) and not any(self._answered(step.name, root, up_to) for root in roots):
                yield step.name, ""

    def add(self, message: Message) -> None:
        """Adds the next message."""
        self.messages.append(message)
        match message.kind:
            case "event" if not message.event.step:
                self._begin(message)
            case "event" | "proposal":
                self._answer(message)
            case "released":
                if self.approvals.release(message):
                    self.facts.setdefault(message.event_id, message)
            case "undone":
                self._undo(message)
            case "decision" if message.agent == COORDINATOR:
                self._decide(message)

    def end(self) -> None:
        """Ends the account after the last message."""
        answered = {name for name, _, _, _ in self.answers}
        for step in self.plan.joins() if self.plan is not None else ():
            counted = all(_is_number(each.count) for each in step.after_all)
            if not counted and step.name not in answered and not self.unsure:
                self.unsure = f"a condition decides how much step {step.name} waits for"

    def _begin(self, message: Message) -> None:
        if self.plan is None or not self.plan.begins(message.type, message.event.source):
            return
        if self.first is not None:
            self.second.append(message)
            return
        self.first = self.facts[message.event_id] = message

    def _answer(self, message: Message) -> None:
        event, step = message.event, self.step_of(message)
        if self.plan is None or step is None or not self._is_foreseen(message, step):
            self.unsure = self.unsure or _UNFORESEEN
            return
        place = (event.step, event.root, event.run, event.output_index)
        if place in self.answers:
            self.second.append(message)
            return
        self.answers[place] = message
        if message.kind == "proposal":
            self.approvals.propose(message, self.plan.gates_on(message.type))
        else:
            self.facts.setdefault(message.event_id, message)

    def _undo(self, message: Message) -> None:
        if any(each.event_id == message.event.root and self._undoable(each) for each in self.answers.values()):
            self.undone.setdefault(message.event.root, message)
        else:
            self.unsure = self.unsure or _UNFORESEEN

    def _is_foreseen(self, message: Message, step: Step) -> bool:
        assert self.plan is not None
        event = message.event
        gated = bool(self.plan.gates_on(message.type))
        totals = {each.event.output_total for each in self._outputs(event.step, event.root, event.run)}
        return (
            (message.agent, message.kind) == (step.agent, "proposal" if gated else "event")
            and self.plan.answers(step, message.type)
            and self._triggers(step, event.root)
            and event.output_index < event.output_total
            and totals <= {event.output_total}
            and (message.type != COMPLETED or event.output_total == 1)
        )

    def _outputs(self, step: str, root: str, run: int) -> list[Message]:
        return [each for (name, of, number, _), each in self.answers.items() if (name, of, number) == (step, root, run)]

    def _decide(self, message: Message) -> None:
        self.approvals.decide(message)
        if message.type == FlowMigrated.DESCRIPTOR.full_name:
            self.unsure = "it was moved to another version"
        elif message.type == StepReopened.DESCRIPTOR.full_name:
            reopened = StepReopened.FromString(message.data)
            self.reopened[reopened.step, reopened.root] = reopened.run
            if reopened.run:
                self.unsure = "a step was run again"
        elif message.type == Escalated.DESCRIPTOR.full_name:
            escalated = Escalated.FromString(message.data)
            # The round follows the colon: the same matter may come up again.
            self._escalated[escalated.escalation_id] = escalated.subject_id.partition(":")[0]
        elif message.type == Resolved.DESCRIPTOR.full_name:
            resolved = Resolved.FromString(message.data)
            if resolved.choice in _ACCOUNTED and resolved.escalation_id in self._escalated:
                self.accounted.add(self._escalated[resolved.escalation_id])
        elif message.type == FlowHalted.DESCRIPTOR.full_name and FlowHalted.FromString(message.data).to_step:
            self.unsure = "it went back to a step"

    def _has_consequence_ahead(self, up_to: int) -> bool:
        """Tells whether by then a rule had tripped, or a refusal ended the flow, and the halt was not recorded yet."""
        asked = [each.sequence for each in self.decisions(RuleTripped)] + self.approvals.ends
        halted = max((each.sequence for each in self.decisions(FlowHalted) if each.sequence <= up_to), default=0)
        return any(halted < sequence <= up_to for sequence in asked)

    def _triggers(self, step: Step, root: str) -> bool:
        if step.after_all:
            return True
        trigger = self.facts.get(root) or self.approvals.refusals.get(root)
        return trigger is not None and trigger.type in step.after

    def _answered(self, step: str, root: str, up_to: int) -> bool:
        run = self.reopened.get((step, root), 0)
        there = [each for each in self._outputs(step, root, run) if each.sequence <= up_to]
        return bool(there) and len(there) >= max(1, there[0].event.output_total)

    def _is_joined(self, step: Step, up_to: int) -> bool:
        for each in step.after_all:
            there = sum(fact.type == each.type and fact.sequence <= up_to for fact in self.facts.values())
            if not _is_number(each.count) or there < int(each.count or 1):
                return False
        return True

    def _undoable(self, message: Message) -> bool:
        step = self.step_of(message)
        return step is not None and step.effect == Effect.EFFECT_UNDOABLE


def account(messages: Iterable[Message], plans: Plans) -> Account | None:
    """Accounts for one flow, from its messages in stream order; returns None without messages.

    The plan is that of the first event that could begin a flow of this type; without such an event nothing counts.
    """
    ordered = sorted(messages, key=lambda each: each.sequence)
    if not ordered:
        return None
    made = Account(ordered[0].flow_type, ordered[0].flow_id)
    for message in ordered:
        if made.first is None and message.kind == "event" and not message.event.step:
            made.plan = plans.get((message.flow_type, message.event.template_version))
        if made.first is None or message.event.template_version == made.first.event.template_version or made.unsure:
            made.add(message)
    made.end()
    return made


def _is_number(count: str) -> bool:
    return not count or count.isdecimal()
