"""The application: its routes, and what stands before them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from handrail.console import errors, openid_sign_in, sign_in
from handrail.console.agents import page as agents
from handrail.console.approvals import page as approvals
from handrail.console.coordinator import CallFailed, Coordinator
from handrail.console.ending import ending
from handrail.console.flow import evidence, live
from handrail.console.flow import page as flow
from handrail.console.flows import completion
from handrail.console.flows import page as flows
from handrail.console.openid.provider import Provider
from handrail.console.openid.revocations import Revocations
from handrail.console.options import Options
from handrail.console.overview import page as overview
from handrail.console.quarantine import page as quarantine
from handrail.console.renewing import Renewing
from handrail.console.types import page as types
from handrail.console.web.console import Console, SignInNeeded
from handrail.console.web.guard import Guard
from handrail.console.web.sessions import Sessions

_STATIC = Path(__file__).with_name("static")


ROUTES = (
    Route("/", overview.overview),
    Route("/sign-in", sign_in.sign_in_page, methods=["GET"]),
    Route("/sign-in", sign_in.sign_in, methods=["POST"]),
    Route(openid_sign_in.BEGIN, openid_sign_in.begin),
    Route(openid_sign_in.CALLBACK, openid_sign_in.callback),
    Route("/sign-out", sign_in.sign_out, methods=["POST"]),
    Route("/account", sign_in.account),
    Route("/find", flow.find),
    Route("/flows", flows.flows),
    Route("/flows/{flow_id}", flow.by_id),
    Route("/approvals", approvals.approvals),
    Route("/templates", types.templates),
    Route("/templates/{name}", types.template),
    Route("/completion", completion.completion),
    Route("/quarantine", quarantine.quarantine),
    Route("/agents", agents.agents_page),
    Route("/live/{flow_id}", live.live),
    Route("/evidence/{flow_id}", evidence.evidence),
    Route("/flows/{flow_type}/{key:path}", flow.by_key),
    Mount("/static", StaticFiles(directory=_STATIC)),
)


def create_app(options: Options) -> Starlette:
    """Returns the application. It connects to the coordinator when it starts, within an event loop."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        coordinator = Coordinator(options.coordinator, options.credentials, timeout=options.timeout)
        provider = Provider(options.openid) if options.openid is not None else None
        revocations = Revocations(provider)
        app.state.console = Console(options, coordinator, provider, revocations, Sessions(revocations.add))
        try:
            async with ending(app.state.console):
                yield
        finally:
            await coordinator.close()

    return Starlette(
        routes=ROUTES,
        middleware=[Middleware(Guard, hosts=options.allowed_hosts), Middleware(Renewing)],
        exception_handlers={
            SignInNeeded: errors.sign_in_needed,
            CallFailed: errors.call_failed,
            HTTPException: errors.refused,
            Exception: errors.failed,
        },
        lifespan=lifespan,
    )
