"""Reads templates for their pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from handrail.analysis.diff.template_diff import diff
from handrail.console.flow.reading import flow_type
from handrail.console.web.console import Console
from handrail.console.web.sessions import FlowType, Session
from handrail.mesh.errors import HandrailError
from handrail.mesh.template import Template
from handrail.v1 import template_service_pb2 as pb

_PAGE = 500
_MOST = 2_000


@dataclass(frozen=True, slots=True)
class Changes:
    """What changes for flows between two versions, in sentences; `problem` says why nobody can tell."""

    sentences: Sequence[str]
    problem: str = ""


async def listed(console: Console, session: Session, name: str = "") -> list[pb.TemplateSummary]:
    """The stored versions, of one template or of all; at most 2,000. Raises CallFailed."""
    found: list[pb.TemplateSummary] = []
    request = pb.ListTemplatesRequest(name=name, page_size=_PAGE)
    while len(found) < _MOST:
        page = await console.coordinator.call(console.coordinator.templates.ListTemplates, request, token=session.token)
        found += page.templates
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    return found[:_MOST]


async def activations(console: Console, session: Session, name: str) -> Sequence[pb.LoggedActivation]:
    """The newest 50 activations of a template, newest first. Raises CallFailed."""
    request = pb.ListActivationsRequest(name=name)
    page = await console.coordinator.call(console.coordinator.templates.ListActivations, request, token=session.token)
    return page.activations


async def changes(console: Console, session: Session, name: str, *, old: int, new: int) -> Changes:
    """What changes for flows from one version to another."""
    before = await flow_type(console, session, name, old)
    after = await flow_type(console, session, name, new)
    if before is None or after is None:
        return Changes((), "One of the versions can't be read with your token.")
    try:
        return Changes(await asyncio.to_thread(_sentences, before, after))
    except HandrailError as error:
        return Changes((), error.text)


def _sentences(before: FlowType, after: FlowType) -> Sequence[str]:
    old, new = (Template.compile(each.template, each.contracts) for each in (before, after))
    return [change.text for change in diff(old, new)]
