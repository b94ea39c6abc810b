"""Errors as pages: what happened, why, and what to do; with the request's id, which the log has too."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import grpc
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from handrail.console.coordinator import CallFailed
from handrail.console.web.console import SignInNeeded, console_of, session_key, sign_in_path
from handrail.console.web.pages import page
from handrail.mesh.printable import clean

log = logging.getLogger(__name__)

_Code = grpc.StatusCode


@dataclass(frozen=True, slots=True)
class Problem:
    """An error for people: a title, and what to do next."""

    status: int
    title: str
    next: str


_PROBLEMS = {
    _Code.NOT_FOUND: Problem(404, "There is nothing here", "Look for it by another id, or go back."),
    _Code.PERMISSION_DENIED: Problem(403, "You may not see this", "Sign in as somebody with the role, or ask for it."),
    _Code.INVALID_ARGUMENT: Problem(400, "This can't be looked for", "Correct the address, or go back."),
    _Code.FAILED_PRECONDITION: Problem(409, "This can't be shown", "Go back and look for something else."),
    _Code.RESOURCE_EXHAUSTED: Problem(429, "The coordinator is busy", "Wait a moment, then reload the page."),
    _Code.UNAVAILABLE: Problem(503, "The coordinator does not answer", "Nothing is lost. Reload the page in a moment."),
    _Code.DEADLINE_EXCEEDED: Problem(504, "The coordinator took too long", "Reload the page, or ask for less."),
}
_OTHER = Problem(502, "The coordinator failed", "Reload the page. If it happens again, report the id below.")
_BUG = Problem(500, "The console failed", "Reload the page. If it happens again, report the id below.")
_NO_TOKEN = Problem(503, "Your token has ended and can't be renewed now", "Reload the page in a moment.")
_NO_PAGE = Problem(404, "There is no such page", "Check the address, or begin at the start.")
_REFUSED = Problem(400, "This was refused", "Go back, reload the page, and try again.")


async def sign_in_needed(request: Request, error: Exception) -> Response:
    """Leads to the sign-in page, and back afterwards."""
    assert isinstance(error, SignInNeeded)
    return RedirectResponse(sign_in_path(error.back), 303)


async def call_failed(request: Request, error: Exception) -> Response:
    """Shows what the coordinator refused. A token that it no longer takes ends the session."""
    assert isinstance(error, CallFailed)
    if error.code is _Code.UNAUTHENTICATED:
        console_of(request).sessions.end(session_key(request))
        return RedirectResponse(sign_in_path(request.url.path if request.method == "GET" else "/"), 303)
    problem = _PROBLEMS.get(error.code, _OTHER)
    if problem.status >= 500:
        log.warning("request %s: %s: %s", request.state.request_id, error.code.name, clean(error.text))
    return _shown(request, problem, why=error.text, reason=error.reason or error.code.name)


def token_ended(request: Request, why: str) -> Response:
    """Says why a session can't go on now; it is not over."""
    log.warning("request %s: %s", request.state.request_id, why)
    return _shown(request, _NO_TOKEN, why=why, reason="")


async def refused(request: Request, error: Exception) -> Response:
    """Shows an error of the request itself."""
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return _shown(request, _NO_PAGE, why="", reason="")
    problem = Problem(error.status_code, _REFUSED.title, _REFUSED.next)
    return _shown(request, problem, why=error.detail, reason="")


async def failed(request: Request, error: Exception) -> Response:
    """Shows an error of ours; the log has the rest."""
    log.error("request %s failed", request.state.request_id, exc_info=error)
    return _shown(request, _BUG, why="", reason="")


def _shown(request: Request, problem: Problem, *, why: str, reason: str) -> Response:
    return page(request, "error.html", {"problem": problem, "why": why, "reason": reason}, status=problem.status)
