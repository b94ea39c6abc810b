"""The agents' users of the broker, derived from the templates."""

from __future__ import annotations

import re
from collections.abc import Iterable

from handrail.mesh.permissions.accounts import AGENTS, HINT, READ_BY_AGENTS
from handrail.mesh.permissions.names import durable, inbox_prefix, require_name, require_token
from handrail.mesh.permissions.services import acknowledging, consuming
from handrail.mesh.permissions.user import User
from handrail.mesh.template.specs import STEP_COMPLETED
from handrail.mesh.template.terms import emits_of
from handrail.mesh.wire.subjects import NAME, Kind
from handrail.v1.failure_pb2 import Divergence, StepFailed, StepNotStarted, StepProgress
from handrail.v1.template_pb2 import FlowTemplate

_MESSAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")

_FAILED, _NOT_STARTED, _PROGRESS, _DIVERGENCE = (
    message.DESCRIPTOR.full_name for message in (StepFailed, StepNotStarted, StepProgress, Divergence)
)


def agent_users(templates: Iterable[FlowTemplate]) -> dict[str, User]:
    """The agents by name, with the permissions that all stored versions of all templates need. An agent that only the
    API speaks for is none of them.

    Raises TEMPLATE_REFUSED if a name in a template can't be part of a subject.
    """
    publish: dict[str, set[str]] = {}
    for template in templates:
        for agent, subjects in _published_by_agents(template).items():
            publish.setdefault(agent, set()).update(subjects)
    return {name: _agent(name, subjects) for name, subjects in publish.items()}


def _published_by_agents(template: FlowTemplate) -> dict[str, set[str]]:
    """Agent -> the FLOW and KEY subjects that it may publish under this version."""
    require_token(template.name, NAME, "flow type")
    gated = {gate.on for gate in template.gates}
    published: dict[str, set[str]] = {}

    def allow(agent: str, kind: Kind, message: str) -> None:
        require_token(message, _MESSAGE, "message")
        published.setdefault(agent, set()).add(f"flow.{template.name}.*.{kind}.{agent}.*.{message}")

    for step in template.steps:
        require_name(step.agent, "agent")
        if step.external:
            continue
        allow(step.agent, Kind.EVENT, STEP_COMPLETED)
        for message in emits_of(step):
            allow(step.agent, Kind.PROPOSAL if message in gated else Kind.EVENT, message)
        allow(step.agent, Kind.FAILURE, _FAILED)
        allow(step.agent, Kind.FAILURE, _NOT_STARTED)
        allow(step.agent, Kind.PROGRESS, _PROGRESS)
        allow(step.agent, Kind.DIVERGENCE, _DIVERGENCE)
        if step.HasField("undo"):
            for message in (*step.undo.emits, STEP_COMPLETED):
                allow(step.agent, Kind.UNDONE, message)
    for agent in template.started_by:
        require_name(agent, "agent")
        for message in template.starts_with:
            allow(agent, Kind.EVENT, message)
        allow(agent, Kind.DIVERGENCE, _DIVERGENCE)
        published[agent].add(f"key.{template.name}.*")
    return published


def _agent(name: str, subjects: set[str]) -> User:
    services = (
        f"quarantine.*.*.{name}.*.*",
        f"worker.{name}.*",
        *READ_BY_AGENTS,
        *consuming("FLOW", durable(name)),
        *acknowledging("FLOW", durable(name)),
    )
    return User(name, AGENTS, (*sorted(subjects), *services), (f"{inbox_prefix(name)}.>", HINT))
