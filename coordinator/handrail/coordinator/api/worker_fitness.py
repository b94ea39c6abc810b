"""Whether an agent's live workers fit a version: checked before activation and where a step gets no worker."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta

from handrail.mesh.bus import Bus
from handrail.mesh.errors import HandrailError
from handrail.mesh.flow import Flow, RunState
from handrail.mesh.streams.workers import Fit, Workers, agents_of, live_workers
from handrail.mesh.template import Template
from handrail.mesh.waiting import Patience
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_service_pb2 import UnfitAgent

_PATIENCE = timedelta(seconds=5)
_AGAIN = timedelta(milliseconds=250)
"""Workers look for new templates every two seconds: how long to wait for them, and how often to ask."""


async def unfit_agents(bus: Bus, template: Template) -> list[UnfitAgent]:
    """Lists the agents that have live workers but none that fits a version. Waits until all live ones looked at it.

    Raises what `Bus.direct_get` raises.
    """
    patience = Patience(_PATIENCE, first=_AGAIN, longest=_AGAIN)
    while True:
        workers = await live_workers(bus, agents_of(template))
        asked = [each for each in workers.values() if each.states]
        undecided = [each for each in asked if each.fit(template.name, template.version) is Fit.UNKNOWN]
        if not undecided or not await patience.wait():
            return list(_unfit(asked, template.name, template.version))


def require_fit(template: Template, unfit: Iterable[UnfitAgent]) -> None:
    """Raises WORKERS_DO_NOT_FIT, with the agents' names and their problems, if any agent is unfit."""
    named = {each.agent: each.problem for each in unfit}
    if named:
        raise HandrailError(
            ErrorReason.ERROR_REASON_WORKERS_DO_NOT_FIT,
            f"{template.name} version {template.version} is not activated: no fitting live worker for "
            + ", ".join(f"{agent} ({problem})" for agent, problem in named.items())
            + "; roll out workers that do, or force it; the steps of these agents wait until then",
            agents=",".join(named),
        )


async def waits_for_nobody(bus: Bus, flow: Flow) -> frozenset[str]:
    """Lists the agents that owe the flow something and have live workers, but none that fits its version."""
    owing = {run.step.agent for run in flow.runs.values() if run.state is RunState.OWED}
    owing |= {effect.step.agent for effect in flow.effects.values() if effect.deadline is not None}
    if not owing:
        return frozenset()
    workers = (await live_workers(bus, owing)).values()
    return frozenset(each.agent for each in _unfit(workers, flow.template.name, flow.template.version))


def _unfit(workers: Iterable[Workers], flow_type: str, version: int) -> Iterable[UnfitAgent]:
    for each in workers:
        if each.fit(flow_type, version) is Fit.NONE:
            yield UnfitAgent(agent=each.agent, problem=each.problem(flow_type, version))
