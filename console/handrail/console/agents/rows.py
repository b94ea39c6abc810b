"""Agents as rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import groupby, islice

from handrail.console.flow.states import State
from handrail.mesh.printable import shortened
from handrail.v1.flow_service_pb2 import DivergenceCount
from handrail.v1.template_service_pb2 import AgentUsage, AgentWorkers, VersionFit

_MOST_VERSIONS = 5
_MOST_WORDS = 50
_LONGEST_WORD = 300


@dataclass(frozen=True, slots=True)
class AgentRow:
    """An agent as its durable consumer shows it.

    `oldest` is when the oldest message was stored that it has not settled; `live` how many of its workers are, None if
    it is not known.
    """

    name: str
    durable: str
    state: State
    pending: int
    in_hand: int
    oldest: datetime | None
    live: int | None
    flow_types: Sequence[str]


@dataclass(frozen=True, slots=True)
class Word:
    """What workers of an agent report that somebody should look at, in the words of one of them."""

    agent: str
    state: State
    what: str
    text: str


def agents(found: Iterable[AgentUsage]) -> list[AgentRow]:
    """The agents; those with work that nobody takes first, then those with the most work."""
    rows = [
        AgentRow(
            each.agent,
            each.durable,
            _state(each),
            each.pending,
            each.ack_pending,
            each.oldest_unsettled_time.ToDatetime(UTC) if each.HasField("oldest_unsettled_time") else None,
            each.workers.live if each.HasField("workers") else None,
            _types(each.filter_subjects),
        )
        for each in found
    ]
    return sorted(rows, key=lambda row: (row.state.tone != "bad", -row.pending, row.name))


def words(found: Iterable[AgentUsage]) -> list[Word]:
    """What workers report: handlers that are stuck, and versions that none of them fits or some don't."""
    return list(islice((word for each in found for word in _words(each.agent, each.workers)), _MOST_WORDS))


def divergences(counts: Iterable[DivergenceCount]) -> dict[str, int]:
    """How many divergences each agent has."""
    found: dict[str, int] = {}
    for each in counts:
        found[each.agent] = found.get(each.agent, 0) + each.count
    return found


def _words(agent: str, workers: AgentWorkers) -> Iterator[Word]:
    if workers.stuck_handlers:
        noun = "handler does" if workers.stuck_handlers == 1 else "handlers do"
        what = f"{workers.stuck_handlers:,} {noun} not end"
        yield Word(agent, State("!", "Stuck", "bad"), what, shortened("; ".join(workers.stuck), _LONGEST_WORD))
    for flow_type, fits in groupby(workers.fits, key=lambda each: each.flow_type):
        # Old versions that nothing runs on need no worker: the newest tell what was forgotten.
        for each in [one for one in fits if one.unfit][-_MOST_VERSIONS:]:
            yield Word(agent, _fit(each), f"{flow_type} v{each.version}: {_count(each)}", each.problem)


def _fit(each: VersionFit) -> State:
    return State("◐", "Some fit", "wait") if each.fitting else State("✕", "None fits", "bad")


def _count(each: VersionFit) -> str:
    return f"{each.fitting:,} of {each.fitting + each.unfit:,} fit"


def _state(usage: AgentUsage) -> State:
    if not usage.filter_subjects:
        return State("○", "Not set up", "wait")
    if usage.ack_pending:
        return State("▸", "At work", "run")
    if usage.waiting_pulls:
        return State("✓", "Listens", "muted")
    return State("!", "Nobody listens", "bad") if usage.pending else State("○", "Nobody listens", "wait")


def _types(subjects: Iterable[str]) -> list[str]:
    """The flow types of subjects such as `flow.refund.*.event.…`."""
    return sorted({each.split(".")[1] for each in subjects if each.count(".")})
