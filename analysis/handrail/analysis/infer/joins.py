"""Finds the inputs of a join from its root: the hash of the input ids in stream order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations, islice, product

from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Recorded

_TRIES = 5_000
"""The maximum number of input sets tried for one root."""

_Counts = Mapping[str, int]


class Explainer:
    """Finds the inputs behind roots. Tries the inputs of earlier runs of the same step first."""

    def __init__(self) -> None:
        self._known: dict[str, set[frozenset[str]]] = {}

    def inputs(self, step: str, root: str, facts: Sequence[Recorded], last: Recorded | None) -> tuple[Recorded, ...]:
        """The inputs of a run, in stream order; empty if no facts before it explain the root.

        A join takes the first facts of each type, and runs at the one that completes them: `last`, if known.
        """
        if last is not None:
            facts = [fact for fact in facts if fact.sequence <= last.sequence]
        by_type: dict[str, list[Recorded]] = {}
        for fact in facts:
            by_type.setdefault(fact.type, []).append(fact)
        there = {name: len(group) for name, group in by_type.items()}
        guesses = self._guesses(step, there, last.type if last is not None else "")
        for counts in islice(guesses, _TRIES):
            chosen = [fact for name, count in counts.items() for fact in by_type[name][:count]]
            chosen.sort(key=lambda fact: fact.sequence)
            if ids.join_root(fact.event_id for fact in chosen) == root:
                self._known.setdefault(step, set()).add(frozenset(counts))
                return tuple(chosen)
        return ()

    def _guesses(self, step: str, there: _Counts, last: str) -> Iterator[_Counts]:
        """Guesses the number of facts by type, likely ones first: as in earlier runs, all of few types, then any."""
        for types in self._known.get(step, ()):
            if types <= there.keys():
                yield from _combined({name: range(there[name], 0, -1) for name in types}, there, last)
        yield from _all_of_few(there, last)
        yield from _combined({name: range(there[name], -1, -1) for name in there}, there, last)


def _all_of_few(there: _Counts, last: str) -> Iterator[_Counts]:
    """All facts of some types, few types first: the join of a long flow waits for few of the earlier types."""
    others = [name for name in there if name != last]
    for size in range(len(there) + 1):
        for names in combinations(others, size):
            counts = {name: there[name] for name in there if name in names or name == last}
            if counts:
                yield counts


def _combined(choices: Mapping[str, Iterable[int]], there: _Counts, last: str) -> Iterator[_Counts]:
    """All combinations of counts. The last input completes its type."""
    choices = {name: (there[name],) if name == last else tuple(numbers) for name, numbers in choices.items()}
    for numbers in product(*choices.values()):
        counts = {name: number for name, number in zip(choices, numbers, strict=True) if number}
        if counts:
            yield counts
