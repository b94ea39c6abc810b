"""The durable consumers: one per agent, and three of the coordinator. They belong to templates, not to workers.

An agent's durable delivers the union over all stored versions of all templates. Filters are only added, never removed:
a running flow keeps the version it started with.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from handrail.mesh.bus import ApiError, Bus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.streams.promised import Difference, differences
from handrail.mesh.streams.streams import FLOW, TIMER, Config
from handrail.mesh.template import APPROVAL_REFUSED, StepSpec, Template
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1 import decision_pb2 as decisions

_logger = logging.getLogger(__name__)

DECIDE = "decide"
TRACK = "track"
DUE = "due"

ACK_WAIT = timedelta(seconds=30)
"""How long the broker waits for an ack before it redelivers. A worker that needs longer sends `in_progress` in time."""

_OF_AGENTS = "agent-"

_NANOSECONDS = 1_000_000_000

_ASK_FOR_MORE = (
    decisions.ActRequested,
    decisions.ActWithdrawn,
    decisions.ApprovalGiven,
    decisions.ApprovalReassigned,
    decisions.ApprovalRefused,
    decisions.FlowHalted,
    decisions.FlowMigrated,
    decisions.FlowResumed,
    decisions.Resolved,
    decisions.RuleTripped,
    decisions.StepQueued,
    decisions.StepReopened,
    decisions.StepTimedOut,
    decisions.TimeCredited,
)
"""Decisions that may need a follow-up. Their delivery wakes the coordinator, even after a crash.

The plan of a compensation is not among them. It follows from another message, which is not acknowledged before all that
follows from it is decided: after a crash, that one is delivered again.
"""


_DECIDED = (Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.DIVERGENCE, Kind.RELEASED, Kind.PROGRESS)

_PROMISED: Config = {
    "ack_policy": "explicit",
    # The SDK recognises poison messages; a limit here would drop messages silently.
    "max_deliver": -1,
    # Each worker limits what it holds; with a limit here, naks with a delay would block everything else.
    "max_ack_pending": -1,
    "headers_only": False,
    "inactive_threshold": 0,
    "deliver_subject": None,
}
"""Another value would break a promise."""

_STARTING: Config = {
    "deliver_policy": "all",
    "ack_wait": int(ACK_WAIT.total_seconds()) * _NANOSECONDS,
    "max_waiting": 4096,
    "metadata": {"handrail": "1"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Durable:
    """A durable that must exist and deliver `subjects`, and what the broker says of it; `config` is None if it is
    missing. `pending` messages are not delivered yet, `ack_pending` ones are delivered but not settled; all that it
    delivers up to the sequence `settled_up_to` is settled; `waiting_pulls` counts the open requests of live workers.
    """

    stream: str
    name: str
    subjects: frozenset[str]
    config: Config | None = None
    pending: int = 0
    ack_pending: int = 0
    settled_up_to: int = 0
    waiting_pulls: int = 0
    is_paused: bool = False

    @property
    def agent(self) -> str:
        """The agent that it belongs to; empty for the coordinator's."""
        return self.name.removeprefix(_OF_AGENTS) if self.name.startswith(_OF_AGENTS) else ""

    @property
    def delivered(self) -> frozenset[str]:
        """The subjects that it delivers."""
        return frozenset() if self.config is None else _filters_of(self.config)

    @property
    def lacking(self) -> frozenset[str]:
        """The subjects that it must deliver, and does not."""
        return self.subjects - self.delivered

    @property
    def broken(self) -> tuple[Difference, ...]:
        """The differences of its configuration that break a promise."""
        return () if self.config is None else differences(_PROMISED, self.config)


def agent_durable(agent: str) -> str:
    """The name of the durable that all workers of an agent share."""
    return f"{_OF_AGENTS}{agent}"


def agent_filters(templates: Iterable[Template]) -> dict[str, frozenset[str]]:
    """Agent -> the subjects that its durable delivers, as a union over these versions. An agent whose steps are all
    external has none: nothing is delivered to it."""
    templates = tuple(templates)
    gated: defaultdict[str, set[str]] = defaultdict(set)
    for template in templates:
        gated[template.name].update(gate.on for gate in template.gates.values())
    filters: defaultdict[str, set[str]] = defaultdict(set)
    for template in templates:
        for step in template.steps.values():
            if step.external:
                continue
            filters[step.agent].update(_step_filters(template.name, step, gated[template.name]))
    return {agent: frozenset(subjects) for agent, subjects in filters.items()}


def coordinator_filters() -> dict[str, frozenset[str]]:
    """The coordinator's durables on FLOW -> the subjects that they deliver.

    `track` has a single filter, which costs the broker next to nothing where it passes from one file of the stream
    to the next. With several, it looks at every stored subject there (`FLOW_MESSAGES`).
    """
    decided = {_decision("*", message.DESCRIPTOR.full_name) for message in _ASK_FOR_MORE}
    undecided = {f"flow.*.*.{kind}.>" for kind in _DECIDED}
    return {DECIDE: frozenset(decided | undecided), TRACK: frozenset({f"flow.*.*.{Kind.EVENT}.>"})}


async def ensure_durables(bus: Bus, templates: Iterable[Template]) -> None:
    """Creates missing durables, and adds missing filters. Idempotent; it changes nothing else.

    The broker has no conditional update of a durable: if two callers add different filters at once, one of them may get
    lost. So activation holds a lease around this call, and each start-up adds what is missing. Raises the errors of
    `Bus.request_json`.
    """
    for durable in await read_durables(bus, templates):
        if durable.lacking:
            await extend(bus, durable)


async def read_durables(bus: Bus, templates: Iterable[Template]) -> list[Durable]:
    """The durables that the coordinator and the agents in these versions need, as they are now; those of agents sorted.

    Raises the errors of `Bus.request_json`.
    """
    return [await _read(bus, stream, name, subjects) for stream, name, subjects in _wanted(templates)]


async def extend(bus: Bus, durable: Durable) -> None:
    """Creates a durable, or adds the subjects that it lacks. Raises the errors of `Bus.request_json`."""
    await change(bus, durable, {"filter_subjects": sorted(durable.subjects | durable.delivered)})
    _logger.info("durable %s on %s delivers %d subjects more", durable.name, durable.stream, len(durable.lacking))


async def change(bus: Bus, durable: Durable, fields: Config) -> Config:
    """Creates a durable, or changes these fields of it; returns its configuration.

    Raises the errors of `Bus.request_json`.
    """
    before = dict(durable.config or {**_PROMISED, **_STARTING, "durable_name": durable.name})
    if "filter_subjects" in fields:
        before.pop("filter_subject", None)
    answer = await bus.request_json(
        f"$JS.API.CONSUMER.CREATE.{durable.stream}.{durable.name}",
        {"stream_name": durable.stream, "config": {**before, **fields}},
    )
    config: Config = answer["config"]
    return config


def _wanted(templates: Iterable[Template]) -> Iterable[tuple[str, str, frozenset[str]]]:
    """The stream, name and subjects of each required durable."""
    yield from ((FLOW, durable, subjects) for durable, subjects in coordinator_filters().items())
    yield TIMER, DUE, frozenset({"due.>"})
    yield from ((FLOW, agent_durable(agent), subjects) for agent, subjects in sorted(agent_filters(templates).items()))


def _step_filters(flow_type: str, step: StepSpec, gated: set[str]) -> Iterable[str]:
    yield f"flow.{flow_type}.*.{Kind.RETRY}.{step.agent}.>"
    yield f"flow.{flow_type}.*.{Kind.UNDO}.{step.agent}.>"
    for message_type in step.waits_for:
        if message_type == APPROVAL_REFUSED:
            yield _decision(flow_type, message_type)
            continue
        yield f"flow.{flow_type}.*.{Kind.EVENT}.*.*.{message_type}"
        if message_type in gated:
            yield f"flow.{flow_type}.*.{Kind.RELEASED}.*.*.{message_type}"


def _decision(flow_type: str, message_type: str) -> str:
    return f"flow.{flow_type}.*.{Kind.DECISION}.{COORDINATOR}.*.{message_type}"


async def _read(bus: Bus, stream: str, name: str, subjects: frozenset[str]) -> Durable:
    info = await _info_of(bus, stream, name)
    if info is None:
        return Durable(stream=stream, name=name, subjects=subjects)
    return Durable(
        stream=stream,
        name=name,
        subjects=subjects,
        config=info["config"],
        pending=int(info.get("num_pending", 0)),
        ack_pending=int(info.get("num_ack_pending", 0)),
        settled_up_to=int((info.get("ack_floor") or {}).get("stream_seq", 0)),
        waiting_pulls=int(info.get("num_waiting", 0)),
        is_paused=bool(info.get("paused")),
    )


async def _info_of(bus: Bus, stream: str, durable: str) -> Mapping[str, Any] | None:
    try:
        return await bus.request_json(f"$JS.API.CONSUMER.INFO.{stream}.{durable}")
    except ApiError as error:
        if error.code == CONSUMER_NOT_FOUND:
            return None
        raise


def _filters_of(config: Mapping[str, Any]) -> frozenset[str]:
    single = config.get("filter_subject")
    return frozenset(config.get("filter_subjects") or ([single] if single else []))
