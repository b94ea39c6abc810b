"""Renders pages. Every text that a template prints is escaped, and its control characters are made visible."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from handrail.console.web import moments
from handrail.console.web.console import session_of
from handrail.mesh.printable import clean

_TEMPLATES = Path(__file__).parents[1] / "templates"


def _shown(value: object) -> object:
    """What a template prints for a value; runs on each value before it is escaped."""
    return value if isinstance(value, Markup) else clean(str(value))


def _breakable(name: str) -> Markup:
    """The name of a message, as `ChargebackReceived`, which may go on in another line where a word of it begins."""
    words = re.findall(r"[A-Z]+[^A-Z]*|[^A-Z]+", clean(name))
    return Markup("<wbr>").join(words)


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.filters.update(
        moment=moments.moment,
        exactly=moments.exactly,
        short_id=moments.short_id,
        short_name=moments.short_name,
        lasting=moments.lasting,
        clock=moments.clock,
        breakable=_breakable,
    )
    environment.globals["utc"] = UTC
    return environment


_ENVIRONMENT = _environment()


def text(template: str, **values: object) -> str:
    """A template as text."""
    return _ENVIRONMENT.get_template(template).render(**values)


def page(request: Request, template: str, values: Mapping[str, object], *, status: int = 200) -> HTMLResponse:
    """A page as a response. Templates have the session, or None, and the id of the request besides their values."""
    content = text(
        template,
        session=session_of(request),
        request_id=request.state.request_id,
        path=request.url.path,
        **values,
    )
    return HTMLResponse(content, status)
