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
from handrail.mesh.streams.streams import FLOW, TIMER
from handrail.mesh.template import APPROVAL_REFUSED, StepSpec, Template
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1 import decision_pb2 as decisions

_logger = logging.getLogger(__name__)

DECIDE = "decide"
TRACK = "track"
DUE = "due"

ACK_WAIT = timedelta(seconds=30)
"""How long the broker waits for an ack before it redelivers. A worker that needs longer sends `in_progress` in time."""

_NANOSECONDS = 1_000_000_000

_ASK_FOR_MORE = (
    decisions.ActRequested,
    decisions.ActWithdrawn,
    decisions.ApprovalGiven,
    decisions.ApprovalReassigned,
    decisions.ApprovalRefused,
    decisions.CompensationStarted,
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
"""Decisions that may need a follow-up. Their delivery wakes the coordinator, even after a crash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DurableState:
    """The state of an agent's durable on the broker. `pending` messages are not delivered yet, `ack_pending` ones are
    delivered but not settled; `waiting_pulls` counts the open requests of live workers.
    """

    agent: str
    durable: str
    filters: frozenset[str] = frozenset()
    pending: int = 0
    ack_pending: int = 0
    waiting_pulls: int = 0


def agent_durable(agent: str) -> str:
    """The name of the durable that all workers of an agent share."""
    return f"agent-{agent}"


def agent_filters(templates: Iterable[Template]) -> dict[str, frozenset[str]]:
    """Agent -> the subjects that its durable delivers, as a union over these versions."""
    templates = tuple(templates)
    gated: defaultdict[str, set[str]] = defaultdict(set)
    for template in templates:
        gated[template.name].update(gate.on for gate in template.gates.values())
    filters: defaultdict[str, set[str]] = defaultdict(set)
    for template in templates:
        for step in template.steps.values():
            filters[step.agent].update(_step_filters(template.name, step, gated[template.name]))
    return {agent: frozenset(subjects) for agent, subjects in filters.items()}


def coordinator_filters() -> dict[str, frozenset[str]]:
    """The coordinator's durables on FLOW -> the subjects that they deliver."""
    decided = {_decision("*", message.DESCRIPTOR.full_name) for message in _ASK_FOR_MORE}
    undecided = {f"flow.*.*.{kind}.>" for kind in (Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.DIVERGENCE)}
    tracked = {f"flow.*.*.{kind}.>" for kind in (Kind.EVENT, Kind.RELEASED, Kind.PROGRESS)}
    return {DECIDE: frozenset(decided | undecided), TRACK: frozenset(tracked)}


async def ensure_durables(bus: Bus, templates: Iterable[Template]) -> None:
    """Creates missing durables, and adds missing filters. Idempotent.

    The broker has no conditional update of a durable: if two callers add different filters at once, one of them may get
    lost. So activation holds a lease around this call, and each start-up adds what is missing. Raises the errors of
    `Bus.request_json`.
    """
    for stream, durable, subjects in _wanted(templates):
        await _ensure(bus, stream, durable, subjects)


async def missing_durables(bus: Bus, templates: Iterable[Template]) -> list[str]:
    """The durables that `ensure_durables` would create or extend. Raises the errors of `Bus.request_json`."""
    return [
        durable
        for stream, durable, subjects in _wanted(templates)
        if (info := await _info_of(bus, stream, durable)) is None or not subjects <= _filters_of(info["config"])
    ]


def _wanted(templates: Iterable[Template]) -> Iterable[tuple[str, str, frozenset[str]]]:
    """The stream, name and subjects of each required durable."""
    yield from ((FLOW, durable, subjects) for durable, subjects in coordinator_filters().items())
    yield TIMER, DUE, frozenset({"due.>"})
    yield from ((FLOW, agent_durable(agent), subjects) for agent, subjects in agent_filters(templates).items())


async def agent_states(bus: Bus, templates: Iterable[Template]) -> list[DurableState]:
    """The durables of the agents in these versions, by agent; without filters if a durable does not exist yet.

    Raises the errors of `Bus.request_json`.
    """
    return [await _state(bus, agent) for agent in sorted(agent_filters(templates))]


async def _state(bus: Bus, agent: str) -> DurableState:
    durable = agent_durable(agent)
    info = await _info_of(bus, FLOW, durable)
    if info is None:
        return DurableState(agent=agent, durable=durable)
    return DurableState(
        agent=agent,
        durable=durable,
        filters=_filters_of(info["config"]),
        pending=int(info.get("num_pending", 0)),
        ack_pending=int(info.get("num_ack_pending", 0)),
        waiting_pulls=int(info.get("num_waiting", 0)),
    )


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


async def _ensure(bus: Bus, stream: str, durable: str, subjects: frozenset[str]) -> None:
    info = await _info_of(bus, stream, durable)
    if info is None:
        config = _config(durable, subjects)
    else:
        present = _filters_of(info["config"])
        if subjects <= present:
            return
        config = {**info["config"], "filter_subjects": sorted(subjects | present)}
        config.pop("filter_subject", None)
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{stream}.{durable}", {"stream_name": stream, "config": config})
    _logger.info("durable %s on %s delivers %d subjects", durable, stream, len(config["filter_subjects"]))


def _config(durable: str, subjects: frozenset[str]) -> dict[str, Any]:
    return {
        "durable_name": durable,
        "filter_subjects": sorted(subjects),
        "deliver_policy": "all",
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT.total_seconds()) * _NANOSECONDS,
        # The SDK recognises poison messages; a limit here would drop messages silently.
        "max_deliver": -1,
        # Each worker limits what it holds; with a limit here, naks with a delay would block everything else.
        "max_ack_pending": -1,
        "max_waiting": 4096,
        "metadata": {"handrail": "1"},
    }


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
