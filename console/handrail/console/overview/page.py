"""The route of the overview."""

from __future__ import annotations

from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from handrail.console.agents.rows import agents
from handrail.console.flow.states import State
from handrail.console.overview import needs, tables
from handrail.console.overview.reading import OVERDUE, STUCK, Reading, read
from handrail.console.overview.sparkline import sparklines
from handrail.console.web.console import console_of, now, signed_in
from handrail.console.web.pages import page
from handrail.v1.listing_pb2 import AsOf, Total

_NEEDS = 12
_AGENTS = 12


async def overview(request: Request) -> Response:
    """GET /."""
    session, console = signed_in(request), console_of(request)
    reading, moment = await read(console, session), now()
    waiting = _needs(reading)
    counted = reading.counts.answer
    usage = reading.usage.answer
    values: dict[str, object] = {
        "needs": waiting[:_NEEDS],
        "tiles": _tiles(reading),
        "problems": _problems(reading),
        "counts": _counts(reading, moment),
        "failures": reading.failures.answer.failures if reading.failures.answer else (),
        "agents": agents(usage.agents)[:_AGENTS] if usage else None,
        "broken": tables.broken(reading.health.answer or {}),
        "answers": reading.health.answer is not None,
        "covered": counted.as_of.time.ToDatetime(UTC) if counted and counted.as_of.HasField("time") else None,
        "behind": _behind(counted.as_of) if counted else None,
        "now": moment,
    }
    return page(request, "overview.html", values)


def _counts(reading: Reading, moment: datetime) -> tables.Counts | None:
    if reading.counts.answer is None:
        return None
    lately = sparklines(reading.hours.answer.counts, moment) if reading.hours.answer else {}
    return tables.counts(reading.counts.answer.counts, lately)


def _needs(reading: Reading) -> list[needs.Need]:
    return needs.oldest_first(
        needs.stuck(reading.stuck.answer.flows if reading.stuck.answer else ()),
        needs.overdue(reading.overdue.answer.flows if reading.overdue.answer else ()),
        needs.waiting(reading.waiting.answer.flows if reading.waiting.answer else ()),
        needs.acts(reading.acts.answer.acts if reading.acts.answer else ()),
        needs.quarantined(reading.quarantined.answer.messages if reading.quarantined.answer else ()),
    )


def _tiles(reading: Reading) -> list[tuple[State, str, str]]:
    """How many of each kind there are: a state, a number, an address or none. Kinds without an answer are left out."""
    rows: list[tuple[State, str, str]] = []
    if reading.stuck.answer:
        rows.append((needs.STUCK, _total(reading.stuck.answer.total), f"/flows?{urlencode({'filter': STUCK})}"))
    if reading.waiting.answer:
        rows.append((needs.APPROVAL, _total(reading.waiting.answer.total), "/approvals?view=all"))
    if reading.acts.answer:
        asked = reading.acts.answer
        rows.append((needs.ACT, _listed(len(asked.acts), asked.next_page_token), ""))
    if reading.overdue.answer:
        rows.append((needs.OVERDUE, _total(reading.overdue.answer.total), f"/flows?{urlencode({'filter': OVERDUE})}"))
    if reading.quarantined.answer:
        found = reading.quarantined.answer
        rows.append((needs.QUARANTINE, _listed(len(found.messages), found.next_page_token), "/quarantine"))
    return rows


def _total(total: Total) -> str:
    return f"{total.items:,}{'+' if total.at_least else ''}"


def _listed(number: int, next_page: str) -> str:
    return f"{number}{'+' if next_page else ''}"


def _problems(reading: Reading) -> list[str]:
    """Why parts are missing, each reason once."""
    problems = (
        reading.stuck.problem,
        reading.overdue.problem,
        reading.waiting.problem,
        reading.acts.problem,
        reading.quarantined.problem,
        reading.counts.problem,
        reading.hours.problem,
        reading.failures.problem,
        reading.usage.problem,
        reading.health.problem,
    )
    return list(dict.fromkeys(each for each in problems if each))


def _behind(as_of: AsOf) -> int | None:
    return as_of.messages_behind if as_of.HasField("messages_behind") else None
