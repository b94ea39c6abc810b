"""How long the first page of a list takes, by its filter."""

from __future__ import annotations

import statistics
import time
from datetime import UTC, datetime

from sqlalchemy import Engine, func, select

from handrail.visibility.filter import NEWEST_FIRST, Scope, check, parse, where
from handrail.visibility.index import schema
from tests.support.recorded_refunds import refund_template

_TIMES = 50
_PAGE = 50

QUESTIONS = {
    "all, newest first": "",
    "status": "status = COMPLETED",
    "a rare status": "status = FAILED",
    "type and status": "flow_type = refund AND status = RUNNING",
    "an attribute": 'chargeback_id = "{chargeback}"',
    "an attribute that many have": "account_id = acc-1",
    "a key": 'flow_type = refund AND key = "order-1"',
    "what an agent owes": "agent = ledger",
    "overdue": "overdue",
    "stuck": "stuck",
    "an error class": "error_class = TimedOut",
}
"""Questions, and their filters."""


def ask(engine: Engine) -> None:
    """Prints how long the first page of each question takes."""
    print("| question | rows | p50 ms | p95 ms |\n| --- | --- | --- | --- |")
    with engine.connect() as connection:
        chargeback = connection.execute(
            select(func.max(schema.attribute.c.text)).where(schema.attribute.c.name == "chargeback_id")
        ).scalar_one()
    for question, text in QUESTIONS.items():
        scope = Scope(
            now=datetime.now(UTC), attributes=frozenset(refund_template().search), flow_types=frozenset({"refund"})
        )
        condition = where(check(parse(text.format(chargeback=chargeback)), scope))
        query = select(schema.flow).where(condition).order_by(*NEWEST_FIRST.by()).limit(_PAGE)
        took, rows = [], 0
        for _ in range(_TIMES):
            with engine.connect() as connection:
                began = time.perf_counter()
                rows = len(connection.execute(query).all())
                took.append((time.perf_counter() - began) * 1000)
        worst = statistics.quantiles(took, n=20)[-1]
        print(f"| {question} | {rows} | {statistics.median(took):.1f} | {worst:.1f} |", flush=True)
