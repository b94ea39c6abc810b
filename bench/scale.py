"""`python bench/scale.py`: what holds however many events there are.

For each size, refunds are recorded first, as their agents would, without any. Then the parts follow:

  catch-up   `handrail visibility` catches up from zero, in processes of its own, on SQLite or on `--database`
  questions  the first page of each question, asked many times, of the index that has caught up
  calls      the CPU of GetFlow, of a vote and of GetApproval; compared with the first size
  sweep      what the sweep takes while so many further flows are open (`--open`), and what publishers notice

and once, on an installation of its own:

  steady     how far the index is behind while W1 runs at full rate, and what W1 loses by it; then it catches up from
             zero with these flows

and, for each size, with brokers of their own and retention after five seconds:

  rolling    what the broker has in memory while so many events pass through, and 10,000 refunds are open
  purges     what it takes to purge so many events

Shared machines are noisy: the CPU of an event is disturbed less than rates.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import uvloop
from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.at_scale import calls, catch_up, purges, questions, rolling, steady, stores, sweep
from bench.at_scale.stores import OWN, Store, following
from handrail.cli.dev.processes import free_port
from handrail.mesh.bus import NatsBus
from handrail.mesh.shared_secret import new_secret
from handrail.visibility.index.database import open_engine
from tests.support.accounts import as_user, configuration
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import record_asked, refund_template

ON_A_STORE = ("catch-up", "questions", "calls", "sweep")
BY_INDEX = {"catch-up", "questions", "sweep"}
ALONE = ("steady",)
PASSING = ("rolling", "purges")
_OPEN = (500, 10_000)
"""How many refunds are open at once before they are purged."""

_UNITS = {"k": 1_000, "M": 1_000_000}


def main() -> int:
    """Runs the benchmark and prints its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--events", default="10k,100k", help="sizes, such as 10k,100k,1M (default 10k,100k)")
    add("--parts", default=",".join((*ON_A_STORE, *ALONE, *PASSING)), help="some of the parts above (default all)")
    add("--database", default="", metavar="ADDRESS", help="an empty database, for one size (default: SQLite)")
    add("--open", default="50k", help="open flows of `sweep` (default 50k)")
    add("--rounds", type=int, default=3, help="rounds of `calls`, turns of `sweep` and `steady` (default 3)")
    add("--seconds", type=float, default=10, help="length of such a turn (default 10)")
    add("--rate", type=float, default=200, help="events that pass through in a second, of `rolling` (default 200)")
    add("--keys", default="unkeyed,keyed", help="how the refunds of `rolling` begin (default unkeyed,keyed)")
    options = parser.parse_args()
    parts = options.parts.split(",")
    if any(part in ON_A_STORE for part in parts):
        costs = calls.Costs()
        for size in options.events.split(","):
            _on_a_store(_number(size), parts, options, costs)
    if "steady" in parts:
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            found, caught = steady.run(Path(folder), rounds=options.rounds, seconds=options.seconds)
        print(f"W1 at full rate\n\n{steady.HEAD}\n{found.rows()}\n")
        print(f"catching up with W1's flows\n\n{catch_up.HEAD}\n{caught.row()}\n", flush=True)
    for size in options.events.split(","):
        uvloop.run(_passing(_number(size), parts, options))
    return 0


async def _passing(events: int, parts: list[str], options: argparse.Namespace) -> None:
    if "rolling" in parts:
        print(f"refunds that pass through\n\n{rolling.SERIES}", flush=True)
        found = [
            await rolling.measure(
                events=events, keyed=keyed == "keyed", rate=options.rate, tell=lambda row: print(row, flush=True)
            )
            for keyed in options.keys.split(",")
        ]
        print("\n".join(("", rolling.HEAD, *(each.row() for each in found), "")), flush=True)
    if "purges" in parts:
        print(f"purging refunds\n\n{purges.HEAD}", flush=True)
        for open_at_once in _OPEN:
            print((await purges.measure(events=events, open_at_once=open_at_once)).row(), flush=True)


def _on_a_store(events: int, parts: list[str], options: argparse.Namespace, costs: calls.Costs) -> None:
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as folder,
        running_server(Path(folder) / "nats", accounts=configuration(refund_template().proto)) as server,
    ):
        uvloop.run(_measure(server, Path(folder), events, parts, options, costs))


async def _measure(
    server: NatsServer, folder: Path, events: int, parts: list[str], options: argparse.Namespace, costs: calls.Costs
) -> None:
    store = await stores.recorded(server, folder, events=events, database=options.database)
    if "calls" in parts:
        await _measure_calls(server, folder, events, options.rounds, costs)
    if "sweep" in parts:
        async with await NatsBus.connect(as_user(server, "admin")) as bus:
            await record_asked(bus, _number(options.open), seed=2)
        store = await stores.as_it_is(server, store)
    if not BY_INDEX & set(parts):
        return
    engine = open_engine(store.database)
    caught = await catch_up.caught_up(store, engine)
    if "catch-up" in parts:
        print(f"catching up with refunds\n\n{catch_up.HEAD}\n{caught.row()}\n", flush=True)
    if "questions" in parts:
        questions.ask(engine)
        print(flush=True)
    if "sweep" in parts:
        await _measure_sweep(server, store, engine, options)
    engine.dispose()


async def _measure_calls(server: NatsServer, folder: Path, events: int, rounds: int, costs: calls.Costs) -> None:
    async with await NatsBus.connect(as_user(server, "admin")) as bus:
        asked = await record_asked(bus, (rounds + 1) * calls.CALLS, seed=1)
    await stores.handled(server)
    found = await calls.measure(
        server, folder, refunds=round(events / stores.EVENTS_OF_A_REFUND), asked=asked, rounds=rounds
    )
    print(f"{calls.HEAD}\n{costs.rows(events, found)}\n", flush=True)


async def _measure_sweep(server: NatsServer, store: Store, engine: Engine, options: argparse.Namespace) -> None:
    await stores.handled(server)
    secret = store.folder / "secret"
    secret.write_text(new_secret())
    address = f"127.0.0.1:{free_port()}"
    shared = {"HANDRAIL_VISIBILITY_SECRET_FILE": str(secret)}
    with following(store, HANDRAIL_VISIBILITY_LISTEN=address, **shared) as processes:
        index = sweep.Serving(processes[OWN][0], engine, {"HANDRAIL_VISIBILITY": address, **shared})
        found = await sweep.measure(server, store.folder, index, rounds=options.rounds, seconds=options.seconds)
    print(f"{sweep.HEAD}\n{sweep.rows(store.last_sequence, _number(options.open), found)}\n", flush=True)


def _number(text: str) -> int:
    return int(text[:-1]) * _UNITS[text[-1]] if text[-1:] in _UNITS else int(text)


if __name__ == "__main__":
    sys.exit(main())
