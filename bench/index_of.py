"""An index of any size, made from nothing: flows of several types, most of them long completed.

What is rare is old, too: the newest flows have none of it. So a list that walks from the newest flow on until it finds
some walks far.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import islice
from random import Random

from sqlalchemy import Connection, Engine, Table, insert

from handrail.mesh.wire import ids
from handrail.visibility.filter import Scope
from handrail.visibility.index import hours, schema
from handrail.visibility.index.changes import values_of
from handrail.visibility.index.database import begin_anew
from handrail.visibility.index.statements import Statements

PER_FLOW = 5
"""Sequences between two flows' first messages."""

TYPES = ("refund", "order", "claim", "audit")
COUNTRIES = ("DE", "FR", "IT", "ES", "NL", "BE", "AT", "PL", "CZ", "SE")
ATTRIBUTES = frozenset({"order_id", "account_id", "country", "amount", "note"})
SCOPE_TYPES = frozenset(TYPES)

_PART = 5_000
_EVERY = timedelta(seconds=2)
_WORDS = ("late", "damaged", "wrong", "lost", "double", "unknown", "missing", "partial", "returned", "refused")

Rows = Mapping[Table, Sequence[Mapping[str, object]]]


def scope(now: datetime) -> Scope:
    """What filters of these flows can refer to."""
    return Scope(now=now, attributes=ATTRIBUTES, flow_types=SCOPE_TYPES)


def fill(engine: Engine, flows: int) -> None:
    """Empties the index and stores this many flows, which end now."""
    begin_anew(engine, "made")
    begun = datetime.now(UTC) - flows * _EVERY
    numbers = iter(range(flows))
    while part := list(islice(numbers, _PART)):
        with engine.begin() as connection:
            made = [_flow(number, flows, begun + number * _EVERY) for number in part]
            _store(connection, made)
            _count(connection, [row for each in made for row in each[schema.flow]])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM ANALYZE")


def _store(connection: Connection, flows: Sequence[Rows]) -> None:
    for table in flows[0]:
        rows = [row for each in flows for row in each[table]]
        if rows:
            connection.execute(insert(table), rows)


def _count(connection: Connection, flows: Sequence[Mapping[str, object]]) -> None:
    """Counts flows by hour, as the index does."""
    counts = hours.difference([], hours.counted(values_of(schema.flow, ({"verdict": None, **each} for each in flows))))
    Statements(connection.dialect).increase(connection, schema.flow_hour, counts)


def _flow(number: int, flows: int, started: datetime) -> Rows:
    draw = Random(number)
    first, age = 1 + number * PER_FLOW, 1 - number / flows
    flow_type = draw.choices(TYPES, (60, 30, 9.9, 0.1))[0] if age > 0.5 else draw.choices(TYPES[:3], (60, 30, 10))[0]
    status = _status(draw, age)
    ended = status in ("COMPLETED", "COMPENSATED", "CANCELLED", "FAILED")
    updated = started + timedelta(seconds=draw.expovariate(1 / 3600))
    text = f"{draw.choice(_WORDS)} {draw.choice(_WORDS)}" if status != "COMPLETED" else ""
    flow = {
        "first_sequence": first,
        "flow_type": flow_type,
        "flow_id": ids.flow_id_from_key(flow_type, f"key-{number}"),
        "key": f"key-{number}",
        "version": 1 + int(4 * (1 - age)),
        "status": status,
        "reason": text,
        "halt_mode": 0,
        "requester": draw.choices(("shop", "anna", f"user-{number % 3000}"), (70, 1, 29))[0],
        "started": started,
        "updated": updated,
        "ended": updated if ended else None,
        "deadline": started + timedelta(days=draw.choice((1, 7, 30))) if draw.random() < 0.5 else None,
        "retrying": status == "RUNNING" and draw.random() < 0.05,
        "stuck_since": updated if status == "ESCALATED" else None,
        "last_sequence": first + 5,
        "messages": draw.randint(5, 9),
    }
    return {
        schema.flow: [flow],
        schema.attribute: [{"first_sequence": first, **each} for each in _attributes(draw, number, age)],
        schema.owed: [_owed(draw, first, updated)] if status == "RUNNING" else [],
        schema.approval: _approvals(draw, first, status, updated),
        schema.escalation: [_escalation(first, updated)] if status == "ESCALATED" else [],
        schema.failure: [_failure(draw, first, flow_type, updated)] if draw.random() < 0.04 * age else [],
    }


def _status(draw: Random, age: float) -> str:
    if age > 0.05:
        rare = ("FAILED", "COMPENSATED", "CANCELLED", "ESCALATED", "COMPLETED")
        return draw.choices(rare, (0.05, 2, 2 * age, 0.3, 95.65))[0]
    return draw.choices(("RUNNING", "WAITING_APPROVAL", "COMPENSATING", "COMPLETED"), (40, 10, 0.5, 49.5))[0]


def _attributes(draw: Random, number: int, age: float) -> Iterator[Mapping[str, object]]:
    amount = float(int(10 ** draw.uniform(0, 4)))
    country = draw.choices(COUNTRIES, (40, 20, 10, 10, 5, 5, 5, 3, 1.5, 0.5))[0] if age > 0.5 else COUNTRIES[0]
    yield {"name": "order_id", "text": f"order-{number}", "number": None}
    yield {"name": "account_id", "text": f"acct-{draw.randrange(5000)}", "number": None}
    yield {"name": "country", "text": country, "number": None}
    yield {"name": "amount", "text": str(int(amount)), "number": amount}
    if draw.random() < 0.2:
        yield {"name": "note", "text": f"{draw.choice(_WORDS)} parcel of {draw.choice(_WORDS)} kind", "number": None}


def _owed(draw: Random, first: int, updated: datetime) -> Mapping[str, object]:
    step, agent = draw.choice((("pay", "ledger"), ("notify", "mail"), ("ship", "stock"), ("check", "risk")))
    due = updated + timedelta(seconds=draw.choice((30, 300, 86_400)))
    return {"first_sequence": first, "step": step, "agent": agent, "runs": 1, "attempt": 1, "due": due}


def _approvals(draw: Random, first: int, status: str, updated: datetime) -> list[Mapping[str, object]]:
    if status != "WAITING_APPROVAL" and draw.random() > 0.1:
        return []
    state = "PENDING" if status == "WAITING_APPROVAL" else "APPROVED"
    base = {"first_sequence": first, "proposal_id": f"{draw.getrandbits(128):032x}", "status": state, "step": "pay"}
    return [base | {"agent": "ledger", "type": "payments.v1.RefundPaid", "requested": updated, "expires": None}]


def _escalation(first: int, updated: datetime) -> Mapping[str, object]:
    base = {"first_sequence": first, "escalation_id": f"{first:032x}", "cause": "TIMEOUT", "step": "pay"}
    return base | {"reason": "no answer", "opened": updated}


def _failure(draw: Random, first: int, flow_type: str, time: datetime) -> Mapping[str, object]:
    error, text = draw.choice((("TimedOut", "no answer"), ("Declined", "the bank says no"), ("Broken", "it broke")))
    base = {"sequence": first + 3, "first_sequence": first, "flow_type": flow_type, "step": "pay", "agent": "ledger"}
    return base | {"error_class": error, "text": text, "signature": f"{error}-{draw.randrange(50)}", "time": time}
