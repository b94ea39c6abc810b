"""What a template makes possible: which events can follow which, and which of them lead to the end of the flow.

Everything here is about what may happen, not what will: a step is taken to be able to answer with any of the messages
it emits, alone or with others, and a join to be complete once each of its inputs is possible.
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
        self.refusable = frozenset(gate.on for gate in proto.gates if _goes_on(gate))
        """Types whose refusal lets the flow go on: whoever emits one can be answered with ApprovalRefused."""
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
        """Every event that some step waits for."""
        return frozenset[str]().union(*self.waits)

    @cached_property
    def leading(self) -> frozenset[str]:
        """Every event from which the end can be reached, given that the other inputs of joins are there."""
        leading = set(self.completes)
        grown = True
        while grown:
            grown = False
            for waits, outcomes in zip(self.waits, self.outcomes, strict=True):
                if leading & outcomes and not waits <= leading:
                    leading |= waits
                    grown = True
        return frozenset(leading)

    def possible_from(
        self, starts: Iterable[str], *, without_step: int | None = None, without_event: str | None = None
    ) -> frozenset[str]:
        """What can happen after these events, if one of the steps never answers, or one of the events never happens."""
        possible = set(starts) - {without_event}
        grown = True
        while grown:
            grown = False
            for index in self._triggered(possible):
                new = self.outcomes[index] - possible - {without_event}
                if new and index != without_step:
                    possible |= new
                    grown = True
        return frozenset(possible)

    def can_complete_without(self, step: int) -> bool:
        """Whether a flow can complete though this step gives nothing that others wait for."""
        return not self.completes.isdisjoint(self.possible_from(self.starts, without_step=step))

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


def _goes_on(gate: pb.Gate) -> bool:
    return gate.on_reject in (pb.REJECT_ACTION_UNSPECIFIED, pb.REJECT_ACTION_CONTINUE)
