"""`python bench/lists.py`: how long a page of a list of flows takes, by many filters and orders, with so many flows.

The index is made from nothing (`bench/index_of.py`), on SQLite or on the database of `--database`; `--keep` measures an
index that was made before. The time is what `ListFlows` spends in the database: the first page is counted, too.
A page with a `+` is short: its time was over, and the list goes on. `--cpu` measures the CPU time of this process
instead, for a busy machine; that is all of SQLite's.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.index_of import PER_FLOW, fill, scope
from handrail.visibility.filter import Condition, Order, Place, check, parse, parse_order
from handrail.visibility.index.database import open_engine
from handrail.visibility.search.page import Finder, Page

FILTERS = (
    "",
    "status = COMPLETED",
    "status = CANCELLED",
    "status = FAILED",
    "status = RUNNING",
    "flow_type = refund",
    "flow_type = audit",
    "flow_type = order AND status = CANCELLED",
    "status = FAILED OR status = CANCELLED",
    "NOT status = COMPLETED",
    "requester = shop",
    "requester = anna",
    "flow_type = order AND key = key-17",
    "order_id = order-17",
    "account_id = acct-17",
    'account_id = "acct-1*"',
    "country = DE",
    "country = SE",
    "country = SE OR country = PL",
    "country = SE amount > 9000",
    "country = PL requester = shop",
    "-country = DE",
    "amount = 100",
    "amount > 9000",
    "amount > 9000 amount < 9010",
    "agent = ledger",
    "step = pay",
    "waiting",
    "stuck",
    "retrying",
    "overdue",
    "error_class = TimedOut",
    'error_class = "Time*"',
    "messages > 8",
    "version = 1",
    "age > 2h",
    "age > 2d",
    "updated < 1h",
    "deadline < 1h",
    "deadline < 1h status = RUNNING",
    "ended:*",
    "NOT ended:*",
    "parcel",
    "order-17",
    "zzzz",
    "note:zzz",
)
ORDERS = ("started desc", "started", "updated desc", "updated", "deadline", "deadline desc")

Clock = Callable[[], float]

_PAGE = 50
_COUNTED = 1000


def main() -> int:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=190_000, help="flows in the index (default 190000)")
    parser.add_argument("--database", default="", metavar="ADDRESS", help="an empty database (default: SQLite)")
    parser.add_argument("--keep", action="store_true", help="the database has these flows already")
    parser.add_argument("--times", type=int, default=20, help="how often each page is asked for (default 20)")
    parser.add_argument("--cpu", action="store_true", help="measure CPU time")
    options = parser.parse_args()
    clock = time.process_time if options.cpu else time.perf_counter
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        engine = open_engine(options.database or f"sqlite:///{folder}/index.db")
        if not options.keep:
            fill(engine, options.flows)
        for line in _table(engine, options.flows, options.times, clock):
            print(line, flush=True)
        engine.dispose()
    return 0


def _table(engine: Engine, flows: int, times: int, clock: Clock) -> Iterator[str]:
    """One line for each filter: p50 and p95 of the first page in each order, and of one in the middle, in ms."""
    names = [f"{order}{place}" for order in ORDERS for place in ("", ", middle")]
    yield f"| filter | {' | '.join(names)} |"
    yield f"| --- | {' | '.join('---' for _ in names)} |"
    now = datetime.now(UTC)
    for text in FILTERS:
        condition = check(parse(text), scope(now))
        cells = [
            _cell(engine, condition, parse_order(order), after, times, clock)
            for order in ORDERS
            for after in (None, _middle(engine, parse_order(order), flows))
        ]
        yield f"| `{text}` | {' | '.join(cells)} |"


def _cell(engine: Engine, condition: Condition, order: Order, after: Place | None, times: int, clock: Clock) -> str:
    took: list[float] = []
    page = Page([])
    for _ in range(times):
        with engine.connect() as connection:
            began = clock()
            finder = Finder(connection, condition)
            page = finder.page(order, size=_PAGE, after=after)
            if after is None and page.next is not None:
                finder.count(_COUNTED)
            took.append((clock() - began) * 1000)
    is_short = page.next is not None and len(page.rows) < _PAGE
    return f"{statistics.median(took):.0f}/{statistics.quantiles(took, n=20)[-1]:.0f}{'+' if is_short else ''}"


def _middle(engine: Engine, order: Order, flows: int) -> Place:
    """A place that has half of the flows before it, about."""
    first = 1 + flows // 2 * PER_FLOW
    if order.is_of_stream:
        return Place(None, first)
    with engine.connect() as connection:
        row = Finder(connection, check(parse(""), scope(datetime.now(UTC)))).page(
            parse_order("started"), size=1, after=Place(None, first)
        )
    return order.place(row.rows[0])


if __name__ == "__main__":
    sys.exit(main())
