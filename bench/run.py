"""`make bench`: Handrail and the bare three-hop chain on nats-py, taking turns in one run.

Shared machines are noisy: read the ratios, not the rates. CPU is user and system time of all processes but the client.
`flood` measures how long approvals take while another agent floods the broker, beside the same without a flood.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import peers
from bench.contender import ROOT, Contender, Failed, Turn, running
from bench.figures import Figures
from bench.flood import work as flood
from bench.flood.compare import compare
from bench.other_tree import installed
from bench.results import BARE, HEAD, HISTORY_HEAD, OURS, Results
from bench.works import WORKS

_WARM_UP = 2.0
_START_SECONDS = 60.0
_QUICK = {"rounds": 1, "seconds": 2.0, "paced_seconds": 2.0, "timers": 2_000, "due": 200, "joins": "25,100"}
_FULL = {"rounds": 3, "seconds": 5.0, "paced_seconds": 5.0, "timers": 100_000, "due": 5_000, "joins": "25,100,200,440"}


def main() -> int:
    """Runs the benchmark and prints its tables."""
    options = _parser().parse_args()
    for name, value in (_QUICK if options.quick else _FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    works = options.works.split(",")
    unknown = [work for work in works if work not in WORKS and work != "flood"]
    if unknown:
        print(f"bench: there is no work {', '.join(unknown)}; there are {', '.join(WORKS)} and flood", file=sys.stderr)
        return 2
    if "flood" in works:
        compare(
            options.floods.split(","),
            rate=options.flood_rate,
            seconds=options.seconds,
            sync_always=options.sync_always,
        )
        works.remove("flood")
    if not works:
        return 0
    against = installed(options.against) if options.against else contextlib.nullcontext()
    with against as python:
        try:
            asyncio.run(_Run(options, python).all(works))
        except Failed as failed:
            print(f"bench: {failed}", file=sys.stderr)
            return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    epilog = "\n".join(f"{each.label} {name}: {each.what}" for name, each in WORKS.items())
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--works", default=",".join(WORKS), help="some of the works below, or flood (default: all but flood)")
    add("--quick", action="store_true", help="one short round and small sizes, unless other options say so")
    add("--rounds", type=int, help="turns of each system (default 3)")
    add("--seconds", type=float, help="length of a turn (default 5)")
    add("--in-flight", type=int, metavar="N", help="flows in flight in a turn (default: by work, 50 to 1000)")
    add("--pace", type=float, default=20, help="flows a second of the turns that measure latency (default 20)")
    add("--paced-seconds", type=float, help="length of such a turn; 0: none (default 5)")
    add("--timers", type=int, help="timers that are armed and not due (default 100000)")
    add("--due", type=int, help="deadlines that are due at once (default 5000)")
    add("--joins", help="numbers of parts (default 25,100,200,440; a flow of 900 messages is held)")
    add("--join-seconds", type=float, default=30, help="how long one join may take (default 30)")
    add("--replicas", type=int, default=1, metavar="N", help="coordinators (default 1)")
    add("--beside-one", action="store_true", help="with --replicas: also measure one coordinator, in turns")
    add("--against", metavar="REV", help="another revision of this project, in turns")
    add("--peers", type=Path, metavar="FOLDER", help="other systems, in turns; bench/peers says how to install them")
    add("--sync-always", action="store_true", help="sync messages to disk before the acknowledgement")
    add("--json", type=Path, metavar="FILE", help="write all turns there")
    add("--floods", default=",".join(flood.KINDS), help=f"some of {','.join(flood.KINDS)} (default all)")
    add("--flood-rate", type=int, default=5000, help="messages a second; 0: as fast as it can (default 5000)")
    return parser


class _Run:
    """One run with these options; `other` is the interpreter of the other tree."""

    def __init__(self, options: argparse.Namespace, other: Path | None) -> None:
        self._options = options
        self._other = other
        self._results = Results()

    async def all(self, works: Sequence[str]) -> None:
        """Runs the works, prints their tables, and writes the JSON file."""
        options = self._options
        synced = "always" if options.sync_always else "every two minutes (the server's default)"
        print(f"{options.rounds} rounds of {options.seconds:g} s, medians; sync to disk: {synced}\n\n{HEAD}")
        for package in dict.fromkeys(WORKS[work].package for work in works):
            of_package = [work for work in works if WORKS[work].package == package]
            has_bare = any(WORKS[work].has_bare for work in of_package)
            async with self._contenders(package, has_bare=has_bare) as contenders:
                for work in of_package:
                    await self._work(contenders, work)
        date, commit = datetime.now(UTC), _commit()
        if "happy" in self._results.closed:
            print(f"For docs/performance.md:\n{HISTORY_HEAD}\n{self._results.history_row(f'{date:%Y-%m-%d}', commit)}")
        if options.json:
            about = {"time": date.isoformat(timespec="seconds"), "commit": commit, "cores": os.cpu_count()}
            chosen = {name: value for name, value in vars(options).items() if name != "json"}
            options.json.write_text(
                json.dumps({**about, "options": chosen, **self._results.to_json()}, indent=1, default=str) + "\n"
            )

    @contextlib.asynccontextmanager
    async def _contenders(self, package: str, *, has_bare: bool) -> AsyncIterator[list[Contender]]:
        options = self._options
        sync = ["--sync-always"] if options.sync_always else []
        several = [f"--coordinators={options.replicas}"]
        async with contextlib.AsyncExitStack() as stack:
            contenders = []
            if has_bare:
                contenders.append(await stack.enter_async_context(running(BARE, ["bare", package, *sync])))
            if options.beside_one:
                contenders.append(
                    await stack.enter_async_context(running("one coordinator", ["handrail", package, *sync]))
                )
            if self._other is not None:
                theirs = running(options.against, ["handrail", package, *sync, *several], python=self._other)
                contenders.append(await stack.enter_async_context(theirs))
            for name in self._peers() if has_bare else ():
                peer = running(name, [name, package, *sync, f"--peers={options.peers.absolute()}"])
                contenders.append(await stack.enter_async_context(peer))
            contenders.append(await stack.enter_async_context(running(OURS, ["handrail", package, *sync, *several])))
            yield contenders

    def _peers(self) -> Iterator[str]:
        folder = self._options.peers
        for name in peers.NAMES if folder else ():
            if missing := peers.missing(name, folder):
                print(f"{name} is skipped, it needs {missing}")
            else:
                yield name

    async def _work(self, contenders: Sequence[Contender], work: str) -> None:
        options = self._options
        if work == "join":
            for contender in contenders:  # until its agents are ready
                await contender.take(Turn("join", parts=2, within=_START_SECONDS))
            for parts in map(int, options.joins.split(",")):
                turn = Turn("join", parts=parts, within=options.join_seconds)
                if not await self._turns(contenders, f"join {parts}", turn):
                    return  # it still goes on, and a larger one would take longer
        elif work == "timers":
            await self._turns(contenders, work, Turn("timers", armed=options.timers, due=options.due), rounds=1)
        else:
            able = [each for each in contenders if _can(each.name, work)]
            for contender in able:
                await _figures(contender, self._closed(work, min(_WARM_UP, options.seconds)))
            await self._turns(able, work, self._closed(work, options.seconds))

    async def _turns(self, contenders: Sequence[Contender], name: str, turn: Turn, *, rounds: int = 0) -> bool:
        """Prints the table of a work; returns whether each system did it. Who did not is not asked again."""
        options = self._options
        left = list(contenders)
        paced = None
        if name in WORKS and WORKS[name].is_paced and options.paced_seconds > 0:
            paced = Turn("paced", work=name, rate=options.pace, seconds=options.paced_seconds)
        for _ in range(rounds or options.rounds):
            for contender in list(left):
                figures = await _figures(contender, turn)
                self._results.closed[name][contender.name].append(figures)
                if not figures.count:
                    left.remove(contender)
                elif paced is not None and (slow := await _figures(contender, paced)).count:
                    self._results.paced[name][contender.name].append(slow)
        print("\n".join(self._results.table(name)), end="\n\n", flush=True)
        return len(left) == len(contenders)

    def _closed(self, work: str, seconds: float) -> Turn:
        in_flight = self._options.in_flight or WORKS[work].in_flight
        return Turn("closed", work=work, in_flight=in_flight, seconds=seconds)


async def _figures(contender: Contender, turn: Turn) -> Figures:
    """The figures of a turn. A peer that fails has none, and the others go on."""
    try:
        return await contender.take(turn)
    except Failed as failed:
        if contender.name not in peers.NAMES:
            raise
        return Figures(count=0, rate=0, note=str(failed))


def _can(name: str, work: str) -> bool:
    if name in (BARE, *peers.NAMES):
        return WORKS[work].has_bare and work not in peers.CANNOT.get(name, ())
    return True


def _commit() -> str:
    command = ("git", "describe", "--always", "--dirty", "--abbrev=8")
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return ran.stdout.strip() or "unknown"


if __name__ == "__main__":
    sys.exit(main())
