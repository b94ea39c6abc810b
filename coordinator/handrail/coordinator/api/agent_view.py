"""API view of an agent: what waits for it, and what its live workers say of themselves. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from itertools import islice

from handrail.mesh.printable import shortened
from handrail.mesh.streams.durables import Durable
from handrail.mesh.streams.workers import Workers, agents_of
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import timestamp
from handrail.v1 import template_service_pb2 as pb

_MOST_STUCK = 20
_TEXT = 300


def agent_usage(
    durables: Sequence[Durable],
    oldest: datetime | None,
    workers: Workers,
    templates: Iterable[Template],
    may_see: Callable[[str], bool],
) -> pb.AgentUsage:
    """Shows the durables of one agent, when the oldest message that is not settled was stored, and its workers.

    `templates` are all versions. What belongs to flow types that the caller may not see is left out, but for counts.
    """
    agent = durables[0].agent
    takes_part = [each for each in templates if agent in agents_of(each)]
    delivered = {subject for durable in durables for subject in durable.delivered}
    types = {each.split(".")[1] for each in delivered} | {each.name for each in takes_part}
    shown = [each for each in takes_part if may_see(each.name)]
    sees_all = all(map(may_see, types))
    return pb.AgentUsage(
        agent=agent,
        durable=durables[0].name,
        # An agent may work for several flow types, and this caller may read only some of them.
        filter_subjects=sorted(each for each in delivered if may_see(each.split(".")[1])),
        pending=sum(each.pending for each in durables),
        ack_pending=sum(each.ack_pending for each in durables),
        waiting_pulls=sum(each.waiting_pulls for each in durables),
        workers=None if workers.too_many else _workers(workers, shown, with_texts=sees_all),
        oldest_unsettled_time=None if oldest is None else timestamp(oldest),
    )


def _workers(workers: Workers, templates: Sequence[Template], *, with_texts: bool) -> pb.AgentWorkers:
    stuck = workers.stuck
    return pb.AgentWorkers(
        live=len(workers.states),
        fits=_fits(workers, templates),
        stuck_handlers=len(stuck),
        stuck=[shortened(each, _TEXT) for each in islice(stuck, _MOST_STUCK)] if with_texts else (),
    )


def _fits(workers: Workers, templates: Sequence[Template]) -> list[pb.VersionFit]:
    """One line for each version; what workers say of other versions is left out, and so is what they say twice."""
    fitting, unfit = Counter[tuple[str, int]](), Counter[tuple[str, int]]()
    problems: dict[tuple[str, int], str] = {}
    for state in workers.states.values():
        said = {(each.flow_type, each.version): each.problem for each in state.versions}
        for version, problem in said.items():
            (unfit if problem else fitting)[version] += 1
            if problem:
                problems.setdefault(version, problem)
    return [
        pb.VersionFit(
            flow_type=name,
            version=version,
            fitting=fitting[name, version],
            unfit=unfit[name, version],
            problem=shortened(problems.get((name, version), ""), _TEXT),
        )
        for name, version in sorted((each.name, each.version) for each in templates)
    ]
