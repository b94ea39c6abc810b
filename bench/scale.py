"""`python bench/scale.py`: how fast the index follows, and how long questions take, with so many recorded refunds.

The refunds are recorded first, as their agents would, without any. Then `handrail visibility` catches up from zero with
them, in a process of its own, on SQLite or on the database of `--database`. Then each question is asked many times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import uvloop
from sqlalchemy import Engine, func, select

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.meter import cpu_by_name, cpu_ms_each
from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW, ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.set_up import Wishes, set_up
from handrail.visibility.filter import NEWEST_FIRST, Scope, check, parse, where
from handrail.visibility.index import schema
from handrail.visibility.index.database import open_engine
from tests.support.accounts import as_user, configuration, seed_file
from tests.support.followed import covered
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import record, refund_template
from tests.support.waiting import until

_AT_ONCE = 500
"""Refunds whose messages are mixed."""

_START_SECONDS = 60.0
_CATCH_UP_SECONDS = 3600.0

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


def main() -> int:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=20_000, help="recorded refunds (default 20000)")
    parser.add_argument("--database", default="", metavar="ADDRESS", help="an empty database (default: SQLite)")
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running_server(Path(folder) / "nats", accounts=configuration(refund_template().proto)) as server,
    ):
        uvloop.run(_measure(server, Path(folder), options))
    return 0


async def _measure(server: NatsServer, folder: Path, options: argparse.Namespace) -> None:
    async with await NatsBus.connect(as_user(server, "admin")) as bus:
        await ensure_streams(bus)
        await Mesh(bus, Catalog(bus)).put(refund_template())
        messages = await record(bus, options.flows, seed=1, at_once=_AT_ONCE)
        last = int((await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]["last_seq"])
    async with await NatsBus.connect(as_user(server, "setup")) as setup:
        async for _ in set_up(setup, Wishes()):
            pass
    print(f"{options.flows:,} refunds, {messages:,} messages")
    address = options.database or f"sqlite:///{folder}/index.db"
    engine = open_engine(address)
    with _following(server, address, folder) as process:
        processes = {"visibility": [process.pid], "nats": [server.pid]}
        await until(lambda: covered(engine), within=_START_SECONDS)
        began, before, start = time.perf_counter(), cpu_by_name(processes), covered(engine)
        await until(lambda: covered(engine) >= last, within=_CATCH_UP_SECONDS)
        took, spent = time.perf_counter() - began, cpu_ms_each(before, cpu_by_name(processes), last - start)
    parts = ", ".join(f"{name} {spent[name] * 1000:.0f}" for name in processes)
    print(f"catching up: {(last - start) / took:,.0f} messages/s; CPU for each message, µs: {parts}\n")
    _ask(engine)
    engine.dispose()


@contextmanager
def _following(server: NatsServer, address: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {
        **os.environ,
        "HANDRAIL_NATS": server.url,
        "HANDRAIL_NATS_NKEY_FILE": str(seed_file(server, "visibility")),
        "HANDRAIL_DATABASE": address,
        "HANDRAIL_ARCHIVE": str(folder / "archive"),
    }
    with (folder / "visibility.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "handrail.cli.main", "visibility"], env=environment, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def _ask(engine: Engine) -> None:
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


if __name__ == "__main__":
    sys.exit(main())
