"""What a template makes possible: which events can follow which, and where a flow can come to rest.

Everything here is about what may happen, not what will: a step is taken to be able to answer with any of the messages
it emits, and with that one alone; a join to be complete once each of its inputs is possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property

from handrail.mesh.template.specs import APPROVAL_REFUSED, emits_of
from handrail.v1 import template_pb2 as pb

BEGINNING = -1
"""Stands for the beginning of the flow where a step is named by its position."""


class FlowGraph:
    """Steps and the events between them. Steps are known by their position in the template."""

    def __init__(self, proto: pb.FlowTemplate) -> None:
        self._after = tuple(frozenset(step.after) for step in proto.steps)
        self._joins = tuple(frozenset(join.type for join in step.after_all) for step in proto.steps)
        self.starts = frozenset(proto.starts_with)
        self.completes = frozenset(proto.completes_with)
        self.refusable = frozenset(gate.on for gate in proto.gates if goes_on(gate))
        """Types whose refusal lets the flow go on: whoever emits one can be answered with ApprovalRefused."""
        self.watched = frozenset(event for rule in proto.rules for event in rule.on)
        """Events at which a rule is evaluated."""
        self.waits = tuple(after | joins for after, joins in zip(self._after, self._joins, strict=True))
        """What each step waits for."""
        self.outcomes = tuple(self._outcomes(step) for step in proto.steps)
        """What can follow from each step: what it emits, and the refusal of it."""

    @cached_property
    def emitted(self) -> frozenset[str]:
        """Every event that the template lets happen, reachable or not."""
        return self.starts.union(*self.outcomes)

    @cached_property
    def possible(self) -> frozenset[str]:
        """Every event that can happen in a flow from its beginning on."""
        return self.possible_without("")

    @cached_property
    def reachable(self) -> frozenset[int]:
        """The steps that can be triggered."""
        return frozenset(
            index
            for index, (after, joins) in enumerate(zip(self._after, self._joins, strict=True))
            if not self.possible.isdisjoint(after) or (joins and joins <= self.possible)
        )

    @cached_property
    def waited_for(self) -> frozenset[str]:
        """Every event that a step waits for."""
        return frozenset[str]().union(*self.waits)

    @cached_property
    def stuck(self) -> frozenset[str]:
        """Every event after which a flow can come to rest without being complete.

        Nothing follows on it but what is stuck itself: each of the steps that wait for it can answer so. A join is
        taken to have its other inputs, and an event that only a rule looks at to end the flow.
        """
        waiters = {event: len(self._waiters.get(event, ())) for event in self.emitted - self.completes}
        stuck: set[str] = set()
        resting: set[int] = set()  # steps that can answer with what is stuck
        new = [event for event, count in waiters.items() if not count and event not in self.watched]
        while new:
            event = new.pop()
            stuck.add(event)
            for index in self._sources([event]) - resting - {BEGINNING}:
                resting.add(index)
                for before in self.waits[index] & waiters.keys():
                    waiters[before] -= 1
                    if not waiters[before]:
                        new.append(before)
        return frozenset(stuck)

    def dead_ends(self) -> Iterator[tuple[int, str]]:
        """The answers that can leave a flow stranded: a step, or BEGINNING, and the event.

        They are the last events of the ways on which every other branch can come to rest too.
        """
        waiting = [(BEGINNING, event) for event in sorted(self.starts & self.stuck)]
        seen = set(waiting)
        while waiting:
            origin, event = waiting.pop()
            if event not in self._waiters:
                yield origin, event
            for index in self._waiters.get(event, ()):
                new = [(index, answer) for answer in sorted(self.outcomes[index] & self.stuck)]
                waiting += [answer for answer in new if answer not in seen]
                seen.update(new)

    def possible_without(self, missing: str) -> frozenset[str]:
        """Every event that can happen in a flow in which one event never does."""
        return self.possible_among(self.emitted - {missing})

    def can_come_without(self, event: str, missing: str) -> bool:
        """Whether there is a way for a flow on which one event comes and another never does, however long one waits.

        A step gives one answer, and that alone. What is answered by a step whose every answer leads to the missing
        event leads there too; a join is taken to have its other inputs.
        """
        leads: set[str] = set()
        new = frozenset({missing})
        certain: set[int] = set()  # steps whose every answer leads to it
        while new:
            leads |= new
            certain |= {index for index, outcomes in enumerate(self.outcomes) if outcomes <= leads}
            new = frozenset[str]().union(*(self.waits[index] for index in certain)) - leads
        return event not in leads and event in self.possible_among(self.emitted - leads)

    def possible_among(self, allowed: frozenset[str]) -> frozenset[str]:
        """Every event that can happen in a flow in which no others do."""
        lacking = [set(joins) for joins in self._joins]
        possible: set[str] = set()
        new = set(self.starts & allowed)
        while new:
            event = new.pop()
            possible.add(event)
            for index in self._waiters.get(event, ()):
                lacking[index].discard(event)
                if event in self._after[index] or not lacking[index]:
                    new |= (self.outcomes[index] & allowed) - possible
        return frozenset(possible)

    @cached_property
    def cycles(self) -> tuple[frozenset[int], ...]:
        """The sets of steps that can trigger one another again and again."""
        after = {index: self._downstream(index) for index in range(len(self.outcomes))}
        found: dict[frozenset[int], None] = {}
        for index, reached in after.items():
            if index in reached:
                found[frozenset(other for other in reached if index in after[other])] = None
        return tuple(found)

    def goes_round(self, cycle: frozenset[int], limited: Collection[str]) -> bool:
        """Whether the steps of a cycle can still trigger one another for ever where some events are limited."""
        left = set(cycle)
        while left:
            ends = {index for index in left if not left & self._followers(self.outcomes[index].difference(limited))}
            if not ends:
                return True
            left -= ends
        return False

    def can_repeat(self, event: str) -> bool:
        """Whether more than one event of a type can come about in a flow, apart from several by one run of a step.

        Two steps that emit it count as two, though a flow may take but one of the ways: who joins has to say so.
        """
        sources = self._sources({event})
        return len(sources) > 1 or not sources.isdisjoint(self._repeated)

    @cached_property
    def _repeated(self) -> frozenset[int]:
        """The steps that can run more than once in a flow; a join runs once."""
        sources_of = [self._sources(after) for after in self._after]
        repeated: set[int] = set()
        grown = True
        while grown:
            grown = False
            for index, sources in enumerate(sources_of):
                if index not in repeated and (len(sources) > 1 or not sources.isdisjoint(repeated)):
                    repeated.add(index)
                    grown = True
        return frozenset(repeated)

    @cached_property
    def _waiters(self) -> dict[str, list[int]]:
        return _inverse(self.waits)

    @cached_property
    def _emitters(self) -> dict[str, list[int]]:
        return _inverse((*self.outcomes, self.starts))

    def _sources(self, events: Iterable[str]) -> set[int]:
        """The steps that any of these events can come from, and BEGINNING."""
        found = {index for event in events for index in self._emitters.get(event, ())}
        return {BEGINNING if index == len(self.outcomes) else index for index in found}

    @cached_property
    def _successors(self) -> list[set[int]]:
        """The steps that each step can trigger again and again; a join runs once."""
        return [self._followers(outcomes) for outcomes in self.outcomes]

    def _followers(self, events: Iterable[str]) -> set[int]:
        """The steps of which each of these events begins a run."""
        return {index for event in events for index in self._triggers.get(event, ())}

    @cached_property
    def _triggers(self) -> dict[str, list[int]]:
        return _inverse(self._after)

    def _downstream(self, index: int) -> set[int]:
        reached: set[int] = set()
        waiting = {index}
        while waiting:
            new = self._successors[waiting.pop()] - reached
            reached |= new
            waiting |= new
        return reached

    def _outcomes(self, step: pb.Step) -> frozenset[str]:
        emits = emits_of(step)
        return emits | {APPROVAL_REFUSED} if emits & self.refusable else emits


def _inverse(events_of: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    inverse: defaultdict[str, list[int]] = defaultdict(list)
    for index, events in enumerate(events_of):
        for event in events:
            inverse[event].append(index)
    return dict(inverse)


def goes_on(gate: pb.Gate) -> bool:
    """Whether the flow goes on when what the gate guards is refused."""
    return gate.on_reject in (pb.REJECT_ACTION_UNSPECIFIED, pb.REJECT_ACTION_CONTINUE)
