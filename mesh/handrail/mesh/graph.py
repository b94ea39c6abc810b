"""What a template makes possible: which events can follow which, and where a flow can come to rest.

Everything here is about what may happen, not what will: a step is taken to be able to answer with any of the messages
it emits, and with that one alone; a join to be complete once each of its inputs is possible.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cached_property

from handrail.mesh.specs import APPROVAL_REFUSED, emits_of
from handrail.v1 import template_pb2 as pb


class FlowGraph:
    """Steps and the events between them. Steps are known by their position in the template."""

    def __init__(self, proto: pb.FlowTemplate) -> None:
        self._steps = tuple(proto.steps)
        self.starts = frozenset(proto.starts_with)
        self.completes = frozenset(proto.completes_with)
        self.refusable = frozenset(gate.on for gate in proto.gates if goes_on(gate))
        """Types whose refusal lets the flow go on: whoever emits one can be answered with ApprovalRefused."""
        self.watched = frozenset(event for rule in proto.rules for event in rule.on)
        """Events at which a rule is evaluated."""
        self.waits = tuple(frozenset([*step.after, *(join.type for join in step.after_all)]) for step in proto.steps)
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
        return self.possible_from(self.starts)

    @cached_property
    def reachable(self) -> frozenset[int]:
        """The steps that can be triggered."""
        return frozenset(self._triggered(self.possible))

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
        stuck: set[str] = set()
        grown = True
        while grown:
            new = {event for event in self.emitted - stuck if self._comes_to_rest(event, stuck)}
            stuck |= new
            grown = bool(new)
        return frozenset(stuck)

    def dead_ends(self) -> Iterator[tuple[int, str]]:
        """The answers that can leave a flow stranded: a step, by its position, or -1 for the beginning; and the event.

        They are the last events of the ways on which every other branch can come to rest too.
        """
        waiting = [(-1, event) for event in sorted(self.starts & self.stuck)]
        seen = set(waiting)
        while waiting:
            origin, event = waiting.pop(0)
            if not self._waiters(event):
                yield origin, event
            for index in self._waiters(event):
                new = [(index, answer) for answer in sorted(self.outcomes[index] & self.stuck)]
                waiting += [answer for answer in new if answer not in seen]
                seen.update(new)

    def possible_from(self, starts: Iterable[str], *, without_event: str = "") -> frozenset[str]:
        """What can happen after these events, if one of the events never happens."""
        possible = set(starts) - {without_event}
        grown = True
        while grown:
            new = frozenset[str]().union(*(self.outcomes[index] for index in self._triggered(possible)))
            grown = not new <= possible | {without_event}
            possible |= new - {without_event}
        return frozenset(possible)

    @cached_property
    def cycles(self) -> tuple[frozenset[int], ...]:
        """The sets of steps that can trigger one another again and again."""
        after = {index: self._downstream(index) for index in range(len(self._steps))}
        found: dict[frozenset[int], None] = {}
        for index, reached in after.items():
            if index in reached:
                found[frozenset(other for other in reached if index in after[other])] = None
        return tuple(found)

    def can_repeat(self, event: str) -> bool:
        """Whether more than one event of a type can come about in a flow, apart from several by one run of a step.

        Two steps that emit it count as two, though a flow may take but one of the ways: who joins has to say so.
        """
        sources = self._sources({event})
        return len(sources) > 1 or not sources.isdisjoint(self._repeated)

    @cached_property
    def _repeated(self) -> frozenset[int]:
        """The steps that can run more than once in a flow; a join runs once."""
        repeated: set[int] = set()
        grown = True
        while grown:
            grown = False
            for index, step in enumerate(self._steps):
                sources = self._sources(step.after)
                if index not in repeated and (len(sources) > 1 or not sources.isdisjoint(repeated)):
                    repeated.add(index)
                    grown = True
        return frozenset(repeated)

    def _comes_to_rest(self, event: str, stuck: set[str]) -> bool:
        if event in self.completes:
            return False
        waiters = self._waiters(event)
        return all(self.outcomes[index] & stuck for index in waiters) if waiters else event not in self.watched

    def _waiters(self, event: str) -> list[int]:
        return [index for index, waits in enumerate(self.waits) if event in waits]

    def _sources(self, events: Iterable[str]) -> set[int]:
        """The steps that any of these events can come from; -1 for the beginning of the flow."""
        wanted = set(events)
        sources = {index for index, outcomes in enumerate(self.outcomes) if not wanted.isdisjoint(outcomes)}
        return sources | ({-1} if not wanted.isdisjoint(self.starts) else set())

    def _downstream(self, index: int) -> set[int]:
        reached: set[int] = set()
        waiting = [index]
        while waiting:
            outcomes = self.outcomes[waiting.pop()]
            for other, step in enumerate(self._steps):
                if other not in reached and not outcomes.isdisjoint(step.after):  # a join runs once: no way round
                    reached.add(other)
                    waiting.append(other)
        return reached

    def _triggered(self, possible: Iterable[str]) -> Iterator[int]:
        there = frozenset(possible)
        for index, step in enumerate(self._steps):
            joins = frozenset(join.type for join in step.after_all)
            if not there.isdisjoint(step.after) or (joins and joins <= there):
                yield index

    def _outcomes(self, step: pb.Step) -> frozenset[str]:
        emits = emits_of(step)
        return emits | {APPROVAL_REFUSED} if emits & self.refusable else emits


def goes_on(gate: pb.Gate) -> bool:
    """Whether the flow goes on when what the gate guards is refused."""
    return gate.on_reject in (pb.REJECT_ACTION_UNSPECIFIED, pb.REJECT_ACTION_CONTINUE)
