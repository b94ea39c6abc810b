"""The routes of templates."""

from __future__ import annotations

from datetime import UTC

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from handrail.console.flow.graph import graph
from handrail.console.flow.reading import flow_type
from handrail.console.types.reading import activations, changes, listed
from handrail.console.web.console import console_of, now, signed_in
from handrail.console.web.pages import page


async def templates(request: Request) -> Response:
    """GET /templates: each template with its versions."""
    session, console = signed_in(request), console_of(request)
    found = await listed(console, session)
    rows: dict[str, dict[str, int]] = {}
    for each in found:
        row = rows.setdefault(each.name, {"active": 0, "newest": 0, "versions": 0})
        row["versions"] += 1
        row["newest"] = max(row["newest"], each.version)
        row["active"] = each.version if each.active else row["active"]
    return page(request, "templates.html", {"rows": rows})


async def template(request: Request) -> Response:
    """GET /templates/{name}?version=VERSION: the active version, or another one."""
    session, console = signed_in(request), console_of(request)
    name = request.path_params["name"]
    versions = sorted(await listed(console, session, name), key=lambda each: each.version, reverse=True)
    if not versions:
        raise HTTPException(404)
    active = next((each.version for each in versions if each.active), 0)
    version = _version(request.query_params.get("version", "")) or active or versions[0].version
    found = await flow_type(console, session, name, version)
    older = [each.version for each in versions if each.version < version]
    values: dict[str, object] = {
        "name": name,
        "version": version,
        "active": active,
        "versions": versions,
        "svg": graph(found.template) if found else None,
        "before": older[0] if older else 0,
        "changes": await changes(console, session, name, old=older[0], new=version) if older else None,
        "log": [(each, each.activation.time.ToDatetime(UTC)) for each in await activations(console, session, name)],
        "now": now(),
    }
    return page(request, "template.html", values)


def _version(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
