"""Signing in at the identity provider: the way there, and back."""

from __future__ import annotations

import logging

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from handrail.console.openid import authorization, id_token, tokens
from handrail.console.openid.begun import LONGEST, Begun, NotBegun
from handrail.console.openid.provider import Provider, ProviderError, ProviderRefused
from handrail.console.sign_in import WAIT, begin_session, form, has_failed, has_to_wait
from handrail.console.web.console import console_of, is_local, local_path, now, session_of

log = logging.getLogger(__name__)

BEGIN = "/sign-in/begin"
CALLBACK = "/sign-in/callback"
"""Where the provider sends people back to, of each host name that browsers use."""


async def begin(request: Request) -> Response:
    """GET /sign-in/begin: leads to the provider."""
    provider, back = _provider(request), local_path(request.query_params.get("back", "/"))
    if session_of(request) is not None:
        return RedirectResponse(back, 303)
    try:
        metadata = await provider.metadata()
    except ProviderError as error:
        return _failed(request, back, error, status=503)
    begun = Begun(redirect_uri=_origin(request) + CALLBACK, back=back)
    response = RedirectResponse(authorization.link(provider.client, metadata, begun), 303)
    response.set_cookie(
        _cookie_name(request),
        console_of(request).seal.close(begun, now()),
        max_age=int(LONGEST.total_seconds()),
        httponly=True,
        samesite="lax",
        secure=not is_local(request),
        path="/",
    )
    return response


async def callback(request: Request) -> Response:
    """GET /sign-in/callback: the person comes back with a code, or with the provider's refusal."""
    provider, console = _provider(request), console_of(request)
    if request.headers.get("sec-fetch-dest", "document") != "document":
        # An image on a stranger's page must not count as a failure of whoever sees it.
        raise HTTPException(400, "People come back from the identity provider to a page of its own.")
    if has_to_wait(request):
        return form(request, "/", status=429, problem=WAIT)
    try:
        sealed = request.cookies.get(_cookie_name(request), "")
        begun = console.seal.open(sealed, state=request.query_params.get("state", ""), now=now())
    except NotBegun as error:
        if session_of(request) is not None:
            return RedirectResponse("/", 303)
        has_failed(request)
        return form(request, "/", status=400, problem=f"{error} Begin again.")
    response = await _ended(request, provider, begun)
    response.delete_cookie(_cookie_name(request), path="/", httponly=True, samesite="lax", secure=not is_local(request))
    return response


async def _ended(request: Request, provider: Provider, begun: Begun) -> Response:
    found: tokens.Tokens | None = None
    try:
        metadata = await provider.metadata()
        code = authorization.code_of(provider, metadata, request.query_params)
        found = await tokens.exchange(provider, begun, code)
        id_token.check(provider.client, found, await provider.key_set(), nonce=begun.nonce, now=now())
    except ProviderRefused as error:
        has_failed(request)
        return form(request, begun.back, status=403, problem=str(error))
    except ProviderError as error:
        if isinstance(error, authorization.AnswerError):
            has_failed(request)
        if found is not None:
            console_of(request).revocations.add(found.refresh_token)
        return _failed(request, begun.back, error, status=502)
    return await begin_session(request, found.access_token, begun.back, refresh_token=found.refresh_token)


def _failed(request: Request, back: str, error: ProviderError, *, status: int) -> Response:
    log.warning("request %s: %s", request.state.request_id, error)
    return form(request, back, status=status, problem=str(error))


def _provider(request: Request) -> Provider:
    """The provider. Raises HTTPException 404 if the console has none."""
    provider = console_of(request).provider
    if provider is None:
        raise HTTPException(404)
    return provider


def _origin(request: Request) -> str:
    """The console as this browser addresses it. The guard let no other host name in than the console's."""
    scheme = request.url.scheme if is_local(request) else "https"
    return f"{scheme}://{request.headers['host']}"


def _cookie_name(request: Request) -> str:
    return "handrail_sign_in" if is_local(request) else "__Host-handrail_sign_in"
