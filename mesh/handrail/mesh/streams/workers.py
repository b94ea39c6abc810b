"""Live workers: every ten seconds, each worker announces which template versions its handlers fit.

The stream WORKER keeps the newest announcement of each worker in memory for half a minute. It is a hint for people and
for activations; the state of a flow never depends on it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, auto

from google.protobuf.message import DecodeError

from handrail.mesh.bus import Bus, TooManySubjects
from handrail.mesh.streams.streams import WORKER, WORKER_MESSAGE_BYTES
from handrail.mesh.template import Template
from handrail.v1.worker_pb2 import WorkerState, WorkerVersion

BEAT = timedelta(seconds=10)
"""The interval between two announcements of a worker. One expires after three intervals."""

_ID = re.compile(r"[0-9a-f]{32}")

_MOST_BYTES = 4 << 20
"""So much is read of what the workers of one agent say. A hostile one may say anything, as often as it likes."""

_MOST_SAID = 20_000
"""So many versions and stuck handlers are read of all workers of one agent."""


class Fit(Enum):
    """Whether the live workers of an agent can run its steps of a version."""

    FITS = auto()
    NONE = auto()
    """Some workers are live, and none fits."""
    UNKNOWN = auto()
    """No worker is known to be live, or one has not checked the version yet."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The live workers of one agent, by their ids. If there are `too_many` to read, none is known."""

    agent: str
    states: dict[str, WorkerState]
    too_many: bool = False

    def fit(self, flow_type: str, version: int) -> Fit:
        """Whether any worker fits a version."""
        found = [self._of(state, flow_type, version) for state in self.states.values()]
        if any(each is not None and not each.problem for each in found):
            return Fit.FITS
        return Fit.UNKNOWN if not found or None in found else Fit.NONE

    def problem(self, flow_type: str, version: int) -> str:
        """What does not fit, as reported by one of the workers; empty if none reports anything."""
        found = (self._of(state, flow_type, version) for state in self.states.values())
        return next((each.problem for each in found if each is not None and each.problem), "")

    @property
    def stuck(self) -> list[str]:
        """Handlers that still run although their attempts are over."""
        return [text for state in self.states.values() for text in state.stuck]

    @staticmethod
    def _of(state: WorkerState, flow_type: str, version: int) -> WorkerVersion | None:
        return next((v for v in state.versions if (v.flow_type, v.version) == (flow_type, version)), None)


def worker_subject(agent: str, worker: str) -> str:
    """The subject for the announcements of a worker; `worker` is its id, 32 hex digits."""
    return f"worker.{agent}.{worker}"


async def announce(bus: Bus, agent: str, worker: str, state: WorkerState) -> None:
    """Announces a live worker. Raises the errors of `Bus.publish`."""
    await bus.publish(worker_subject(agent, worker), state.SerializeToString())


async def live_workers(bus: Bus, agents: Iterable[str]) -> dict[str, Workers]:
    """Agent -> its live workers, for each of these agents. Ignores unreadable announcements: they may be forged.

    Each agent is asked about by itself: what one of them floods the stream with hides no worker of another.
    Raises the errors of `Bus.direct_get`, but for TooManySubjects.
    """
    wanted = sorted(set(agents))
    found = await asyncio.gather(*(_workers_of(bus, agent) for agent in wanted))
    return dict(zip(wanted, found, strict=True))


async def _workers_of(bus: Bus, agent: str) -> Workers:
    try:
        page = await bus.direct_get(WORKER, multi_last=[f"worker.{agent}.*"])
    except TooManySubjects:
        return Workers(agent, {}, too_many=True)
    states: dict[str, WorkerState] = {}
    room, said = _MOST_BYTES, 0
    for message in page.messages:
        worker, room = message.subject.rpartition(".")[2], room - len(message.body)
        if room < 0 or len(message.body) > WORKER_MESSAGE_BYTES:
            return Workers(agent, {}, too_many=True)
        if _ID.fullmatch(worker) and (state := _read(message.body)) is not None:
            states[worker], said = state, said + len(state.versions) + len(state.stuck)
        if said > _MOST_SAID:
            return Workers(agent, {}, too_many=True)
    return Workers(agent, states)


def _read(body: bytes) -> WorkerState | None:
    try:
        return WorkerState.FromString(body)
    except DecodeError:
        return None


def agents_of(template: Template) -> frozenset[str]:
    """The agents that have steps in a version."""
    return frozenset(step.agent for step in template.steps.values())
