"""What the lists of the API have in common: what a caller may see and name, filters and pages."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import Message

from handrail.coordinator.api import authorization
from handrail.coordinator.api.paging import fitting, page_size
from handrail.index.v1.index_service_pb2 import Page, Query, Scope
from handrail.mesh.errors import HandrailError
from handrail.mesh.fold.status import FINAL
from handrail.mesh.streams.catalog import Catalog
from handrail.v1.decision_pb2 import FlowStatus
from handrail.v1.error_reason_pb2 import ErrorReason

DEFAULT_PAGE = 50

_AT_ONCE = 16

RUNNING = " OR ".join(
    f"status = {name.removeprefix('FLOW_STATUS_')}"
    for name, value in FlowStatus.items()
    if value and value not in FINAL
)
"""The filter for flows that are not over. An index finds each status, but not the lack of an end."""


class ListRequest(Protocol):
    """A request for a page of a list."""

    filter: str
    order_by: str
    page_size: int
    page_token: str


class PagedRow(Protocol):
    """A row of the index, and the token of the page that begins after it."""

    page_token: str


Row = TypeVar("Row", bound=PagedRow)
Item = TypeVar("Item")
View = TypeVar("View", bound=Message)


async def scope(catalog: Catalog, given: str) -> Scope:
    """Returns what the current caller may see, and name in the filter that is given.

    It is decided here and part of every question, so that the index shows and counts nothing else.
    """
    if given:
        await catalog.refresh()
    templates = [each for each in catalog.all() if authorization.lists(each.name)]
    types = authorization.listed_types()
    return Scope(
        every_type=types is None,
        flow_types=sorted({each.name for each in templates} if types is None else types),
        attributes=sorted({name for each in templates for name in each.search}),
    )


def filters(given: str, conditions: Iterable[str] = ()) -> Sequence[str]:
    """Returns filters that must all hold. They are not joined: what somebody typed can't change the others."""
    return [each for each in (given, *conditions) if each]


async def query(request: ListRequest, catalog: Catalog, conditions: Iterable[str] = ()) -> Query:
    """Returns the question for a page of what passes the filter of a request, and these conditions."""
    return Query(
        scope=await scope(catalog, request.filter),
        filters=filters(request.filter, conditions),
        order_by=request.order_by,
        page_size=page_size(request.page_size, DEFAULT_PAGE),
        page_token=request.page_token,
    )


def listed(rows: Iterable[Row], flow_type: Callable[[Row], str]) -> list[Row]:
    """Returns the rows that the current caller may see: who poses as visibility shows nothing more."""
    return [row for row in rows if authorization.lists(flow_type(row))]


def page(rows: Sequence[Row], ending: Page, view: Callable[[Row], View]) -> tuple[list[View], str]:
    """Returns as many views of rows as fit into a response, and the token of the next page."""
    shown = fitting(map(view, rows), len(rows))
    return shown, ending.next_page_token if len(shown) == len(rows) else rows[len(shown) - 1].page_token


async def gathered(reads: Iterable[Awaitable[Item]]) -> list[Item]:
    """Returns what these reads return, a few of which are in progress at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(read: Awaitable[Item]) -> Item:
        async with limit:
            return await read

    return await asyncio.gather(*map(one, reads))


def require_plain(given: str, order_by: str = "") -> None:
    """Raises BAD_FILTER if a scan is asked for a filter or an order."""
    if given or order_by:
        text = "a scan takes no filter and no order: leave them out, or ask without scan"
        raise HandrailError(ErrorReason.ERROR_REASON_BAD_FILTER, text)
