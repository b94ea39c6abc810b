"""The possibilities of a template: which events can follow which, and where a flow can stop.

The graph shows what may happen, not what will: a step may answer with any one of the messages it emits, and only that
one; a join counts as complete once each of its inputs is possible.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cached_property

from handrail.mesh.template.specs import APPROVAL_REFUSED
from handrail.mesh.template.terms import emits_of
from handrail.v1 import template_pb2 as pb

BEGINNING = -1
"""Represents the beginning of the flow among the positions of steps."""


class FlowGraph:
    """The steps, and the events between them. Steps are identified by their position in the template."""

    def __init__(self, proto: pb.FlowTemplate) -> None:
        self._after = tuple(frozenset(step.after) for step in proto.steps)
        self._joins = tuple(frozenset(join.type for join in step.after_all) for step in proto.steps)
        self.starts = frozenset(proto.starts_with)
        self.completes = frozenset(proto.completes_with)
        self.refusable = frozenset(gate.on for gate in proto.gates if goes_on(gate))
        """Types with a gate that lets the flow continue after a refusal: ApprovalRefused may follow them."""
        self.watched = frozenset(event for rule in proto.rules for event in rule.on)
        """Events at which a rule is evaluated."""
        self.waits = tuple(after | joins for after, joins in zip(self._after, self._joins, strict=True))
        """The events that each step waits for."""
        self.outcomes = tuple(self._outcomes(step) for step in proto.steps)
        """The events that can follow from each step: the emitted ones, and their refusals."""

    @cached_property
    def emitted(self) -> frozenset[str]:
        """All events that the template mentions as outcomes, reachable or not."""
        return self.starts.union(*self.outcomes)

    @cached_property
    def possible(self) -> frozenset[str]:
        """All events that can happen in a flow."""
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
        """All events that a step waits for."""
        return frozenset[str]().union(*self.waits)

    @cached_property
    def stuck(self) -> frozenset[str]:
        """All events after which a flow can stop without being complete.

        Only stuck events can follow: each of the steps that wait for such an event can answer with one. Joins count as
        having their other inputs, and an event that only a rule is evaluated at counts as an end.
        """
        waiters = {event: len(self._waiters.get(event, ())) for event in self.emitted - self.completes}
        stuck: set[str] = set()
        resting: set[int] = set()  # steps that can answer with a stuck event
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
        """The answers that can strand a flow: the step, or BEGINNING, and the event.

        They are the last events of the branches on which all other branches can stop as well.
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
        """All events that can happen in a flow without one event."""
        return self.possible_among(self.emitted - {missing})

    def can_come_without(self, event: str, missing: str) -> bool:
        """Whether a flow can reach one event without ever reaching another.

        A step gives only one answer. If all answers of a step lead to the missing event, its trigger leads there too;
        joins count as having their other inputs.
        """
        leads: set[str] = set()
        new = frozenset({missing})
        certain: set[int] = set()  # steps with only answers that lead to it
        while new:
            leads |= new
            certain |= {index for index, outcomes in enumerate(self.outcomes) if outcomes <= leads}
            new = frozenset[str]().union(*(self.waits[index] for index in certain)) - leads
        return event not in leads and event in self.possible_among(self.emitted - leads)

    def possible_among(self, allowed: frozenset[str]) -> frozenset[str]:
        """All events that can happen in a flow with only the allowed events."""
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
        """The sets of steps that can trigger one another repeatedly."""
        after = {index: self._downstream(index) for index in range(len(self.outcomes))}
        found: dict[frozenset[int], None] = {}
        for index, reached in after.items():
            if index in reached:
                found[frozenset(other for other in reached if index in after[other])] = None
        return tuple(found)

    def goes_round(self, cycle: frozenset[int], limited: Collection[str]) -> bool:
        """Whether the steps of a cycle can still trigger one another forever if some events are limited."""
        left = set(cycle)
        while left:
            ends = {index for index in left if not left & self._followers(self.outcomes[index].difference(limited))}
            if not ends:
                return True
            left -= ends
        return False

    def can_repeat(self, event: str) -> bool:
        """Whether a flow can have more than one event of a type, apart from several by one run of a step.

        Two steps that emit it count as two, although a flow may take only one of the branches: the join must say so.
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
        """The steps, and BEGINNING, that any of these events can come from."""
        found = {index for event in events for index in self._emitters.get(event, ())}
        return {BEGINNING if index == len(self.outcomes) else index for index in found}

    @cached_property
    def _successors(self) -> list[set[int]]:
        """The steps that each step can trigger repeatedly; a join runs once."""
        return [self._followers(outcomes) for outcomes in self.outcomes]

    def _followers(self, events: Iterable[str]) -> set[int]:
        """The steps that any of these events triggers on its own."""
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
    """Whether the flow continues after a refusal at this gate."""
    return gate.on_reject in (pb.REJECT_ACTION_UNSPECIFIED, pb.REJECT_ACTION_CONTINUE)
