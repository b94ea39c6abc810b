"""The agents' quarantine streams: which there must be, which there are, and how missing ones are created."""

from __future__ import annotations

from collections.abc import Iterable

from handrail.mesh.bus import Bus
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.streams.provisioning import ensure_stream
from handrail.mesh.streams.streams import FLOW, quarantine_stream, quarantined_agent
from handrail.mesh.template import Template

_SUBJECTS = "quarantine.>"


def agents_named(templates: Iterable[Template]) -> frozenset[str]:
    """The agents that have steps in these versions or may begin their flows. Those that only the API speaks for are
    left out: they are no users of the broker."""
    named: set[str] = set()
    for template in templates:
        named.update(template.started_by, (step.agent for step in template.steps.values() if not step.external))
    return frozenset(named)


async def ensure_quarantines(bus: Bus, templates: Iterable[Template]) -> None:
    """Creates the missing quarantines of the agents in these versions, with as many replicas as FLOW. Idempotent.

    Call it where `ensure_durables` is called: an agent needs both before it publishes. Leaves out agents that the
    broker does not know yet; the diagnosis tells of them. Raises FOREIGN_STREAM and the errors of `Bus.request_json`.
    """
    for agent in sorted(agents_named(templates)):
        await ensure_quarantine(bus, quarantine_stream(agent))


async def ensure_quarantine(bus: Bus, name: str) -> bool:
    """Creates the quarantine of this name, if it is missing. Returns False if the broker does not know its agent yet:
    neither the agent nor its quarantine is let in before the broker's permissions are generated again.

    Raises FOREIGN_STREAM and the errors of `Bus.request_json`.
    """
    try:
        await ensure_stream(bus, name, like=FLOW)
    except BrokerPermission:
        return False
    return True


async def quarantines(bus: Bus) -> list[str]:
    """The agents that have a quarantine, sorted; first an empty text, which is the coordinator's own.

    Raises the errors of `Bus.request_json`.
    """
    found: list[str] = []
    total = 1
    while len(found) < total:
        answer = await bus.request_json("$JS.API.STREAM.NAMES", {"subject": _SUBJECTS, "offset": len(found)})
        listed = answer.get("streams") or []
        total = int(answer.get("total", 0)) if listed else 0
        found += listed
    return sorted(agent for name in found if (agent := quarantined_agent(name)) is not None)
