"""Several calls for one page, of which each may fail by itself."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Generic, TypeVar

import grpc

from handrail.console.coordinator import CallFailed

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Part(Generic[Answer]):
    """The answer to a call; without one, `problem` says why, or is empty if the person may not ask."""

    answer: Answer | None
    problem: str = ""
    reason: str = ""


async def part(call: Awaitable[Answer]) -> Part[Answer]:
    """Waits for a call of which a page can do without the answer. Raises CallFailed if the token is refused."""
    try:
        return Part(await call)
    except CallFailed as error:
        if error.code is grpc.StatusCode.UNAUTHENTICATED:
            raise
        if error.code is grpc.StatusCode.PERMISSION_DENIED:
            return Part(None, reason=error.reason)
        return Part(None, error.text or "The coordinator failed.", error.reason)


TOLD = {"BAD_FILTER": 400, "BAD_PAGE_TOKEN": 400, "NO_INDEX": 503, "INDEX_UNAVAILABLE": 503}
"""What a page says above an empty list, by reason, with the status of its answer."""


async def listed(call: Awaitable[Answer], empty: Answer) -> tuple[Answer, str, int]:
    """A list, or the empty one and why, with the page's status. Raises CallFailed for what concerns the whole page."""
    try:
        return await call, "", 200
    except CallFailed as error:
        if error.reason not in TOLD:
            raise
        return empty, error.text, TOLD[error.reason]
