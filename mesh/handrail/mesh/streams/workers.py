"""Who is live, and fits what: each worker says of itself, every ten seconds, which template versions its handlers fit.

The stream WORKER keeps the newest word of each in memory, and forgets it after half a minute. It is a hint for people
and for activations; a flow's state never rests on it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from google.protobuf.message import DecodeError

from handrail.mesh.bus import Bus
from handrail.mesh.streams.streams import WORKER
from handrail.mesh.template import Template
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion

BEAT = timedelta(seconds=10)
"""How often a worker says that it is there; what it said is forgotten after three times as long."""

_ID = re.compile(r"[0-9a-f]{32}")


class Fit(Enum):
    """Whether an agent's live workers can do its steps of a version."""

    FITS = auto()
    NONE = auto()
    """There are some, and none fits."""
    UNKNOWN = auto()
    """None is known to be live, or one has not looked at the version yet."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The live workers of one agent, by their ids."""

    agent: str
    states: dict[str, WorkerState]

    def fit(self, flow_type: str, version: int) -> Fit:
        """Whether any of them fits a version."""
        found = [self._of(state, flow_type, version) for state in self.states.values()]
        if any(each is not None and not each.problem for each in found):
            return Fit.FITS
        return Fit.UNKNOWN if not found or None in found else Fit.NONE

    def problem(self, flow_type: str, version: int) -> str:
        """What does not fit, as one of them says; empty where none says anything."""
        found = (self._of(state, flow_type, version) for state in self.states.values())
        return next((each.problem for each in found if each is not None and each.problem), "")

    @property
    def stuck(self) -> list[str]:
        """Handlers that go on though their attempts are over."""
        return [text for state in self.states.values() for text in state.stuck]

    @staticmethod
    def _of(state: WorkerState, flow_type: str, version: int) -> WorkerVersion | None:
        return next((v for v in state.versions if (v.flow_type, v.version) == (flow_type, version)), None)


def worker_subject(agent: str, worker: str) -> str:
    """Where a worker says that it is there; `worker` is its id, 32 hex digits."""
    return f"worker.{agent}.{worker}"


async def announce(bus: Bus, agent: str, worker: str, state: WorkerState) -> None:
    """Say that a worker is there. Raises what `Bus.publish` raises."""
    await bus.publish(worker_subject(agent, worker), state.SerializeToString())


async def live_workers(bus: Bus, agents: Iterable[str]) -> dict[str, Workers]:
    """Agent -> its live workers, for each of these agents. What can't be read is left out: anybody might have said it.

    Raises what `Bus.direct_get` raises.
    """
    wanted = sorted(set(agents))
    if not wanted:
        return {}
    found: defaultdict[str, dict[str, WorkerState]] = defaultdict(dict)
    page = await bus.direct_get(WORKER, multi_last=[f"worker.{agent}.*" for agent in wanted])
    for message in page.messages:
        _, agent, worker = message.subject.split(".", 2)
        try:
            state = WorkerState.FromString(message.body)
        except DecodeError:
            continue
        if _ID.fullmatch(worker):
            found[agent][worker] = state
    return {agent: Workers(agent, found[agent]) for agent in wanted}


def agents_of(template: Template) -> frozenset[str]:
    """The agents that have steps in a version."""
    return frozenset(step.agent for step in template.steps.values())
