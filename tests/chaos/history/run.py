"""`make chaos`: load and seeded faults on a real installation, followed by the history checker.

Exits with 1 if any figure other than the recovery times is not 0.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from handrail.cli.client import Client
from handrail.cli.commands import verify
from handrail.cli.transport import Transport
from handrail.cli.verify.check import Check
from handrail.cli.verify.finding import Breach, Finding, counted
from handrail.cli.verify.standing import OPEN
from handrail.v1.decision_pb2 import FlowStatus
from tests.chaos.history import book
from tests.chaos.history.callers import Callers
from tests.chaos.history.faults import Fault, Faults
from tests.chaos.history.figures import Recovery, recoveries, table, wrong_ends
from tests.chaos.history.load import Load
from tests.chaos.history.site import Site, Size, running_site


@dataclass(frozen=True, slots=True, kw_only=True)
class Conduct:
    """The parameters of a run. `settle` is how long flows have to end after load and faults."""

    seed: int
    length: timedelta
    size: Size
    rate: float = 10.0
    pause: tuple[float, float] = (4.0, 10.0)
    settle: timedelta = timedelta(minutes=2)
    grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The result of a run."""

    check: Check
    findings: Sequence[Finding]
    acknowledged: Counter[str]
    errors: Counter[str]
    faults: Sequence[Fault]
    recovered: Sequence[Recovery]
    seconds: float


async def conduct(how: Conduct, folder: Path, tell: Callable[[str], None]) -> Result:
    """Runs in a folder, which keeps history, logs and data."""
    began = time.monotonic()
    async with running_site(folder, how.size) as site, Callers(site, random.Random(how.seed)) as callers:
        tell(f"{how.size.servers} servers, {how.size.coordinators} coordinators, {len(site.workers)} workers")
        load = Load(site, callers, random.Random(how.seed + 1))
        faults = Faults(site, random.Random(how.seed + 2), pause=how.pause)
        over, settled = asyncio.Event(), asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(load.people(settled))
            working = tasks.create_task(load.run(how.rate, over))
            failing = tasks.create_task(faults.run(over, tell))
            await asyncio.sleep(how.length.total_seconds())
            over.set()
            await failing
            await working
            tell(f"{len(load.lots)} flows began; waiting for their ends")
            await _settle(load, site, how.settle)
            settled.set()
        check, findings = await _judge(site, load, callers, how.grace)
        findings += [Finding(Breach.WRONG, text) for text in (*faults.fell, *site.fallen())]
        return Result(
            check=check,
            findings=findings,
            acknowledged=Counter(call.op for call in callers.history.calls if call.outcome == "ok"),
            errors=callers.history.errors,
            faults=faults.done,
            recovered=recoveries(faults.done, load.lots, check.accounts, check.standings),
            seconds=time.monotonic() - began,
        )


async def _settle(load: Load, site: Site, patience: timedelta) -> None:
    """Waits until every flow has ended or the time is up; then the checker tells waiting flows from hanging ones."""
    for address in site.addresses:
        await site.serving(address)
    deadline = time.monotonic() + patience.total_seconds()
    while time.monotonic() < deadline:
        check = await verify.read(site.settings)
        check.judge()
        if not check.open_flows:
            return
        load.know(check.open_flows)
        await asyncio.sleep(3)


async def _judge(site: Site, load: Load, callers: Callers, grace: timedelta) -> tuple[Check, list[Finding]]:
    check = await verify.read(site.settings)
    token = site.token("vera", "viewer")
    calls = callers.history.calls

    def ask() -> list[Finding]:
        with Client(Transport(site.addresses[0]), token=token, timeout=timedelta(seconds=30)) as client:
            return verify.judge(check, client, calls=calls, grace=grace)

    findings = await asyncio.to_thread(ask)
    findings += book.discrepancies(book.read(site.book), check.accounts, check.standings)
    findings += wrong_ends(load.lots, check.accounts, check.standings)
    # An incident id in an error tells a caller nothing about the error.
    findings += [
        Finding(Breach.WRONG, f"{call.op} by {call.by} ended with {call.detail}", call.flow_type, call.flow_id)
        for call in calls
        if "incident" in call.detail
    ]
    return check, findings


def report(how: Conduct, result: Result) -> list[str]:
    """The figures, as lines."""
    lines = [
        f"{each.breach.upper()}  {each.flow_id or '-'}: {each.text} {each.sequence or ''}" for each in result.findings
    ]
    ends = Counter(
        "OPEN" if each.status == OPEN else FlowStatus.Name(each.status)[12:] for each in result.check.standings.values()
    )
    lines += ["", f"seed {how.seed}, {how.size.servers} servers, {result.seconds:.0f} s in all"]
    lines += [f"{len(result.check.accounts)} flows, {result.check.messages} messages: "
              + ", ".join(f"{number} {name}" for name, number in sorted(ends.items()))]  # fmt: skip
    lines += [f"acknowledged: {', '.join(f'{number} {op}' for op, number in sorted(result.acknowledged.items()))}"]
    lines += [f"not: {', '.join(f'{number} {what}' for what, number in sorted(result.errors.items())) or 'none'}", ""]
    rows: list[Sequence[object]] = [("fault", "times", "recovery p50 s", "max s")]
    rows += [(each.kind, each.number, each.middle, each.longest) for each in result.recovered]
    lines += [*table(rows), ""]
    figures = counted(result.findings)
    waiting = len(result.check.open_flows) - figures[Breach.HUNG]
    lines += table([("acked", "waiting", *figures), (sum(result.acknowledged.values()), waiting, *figures.values())])
    return lines


def main() -> int:
    """Runs it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of load and faults (default: the time)")
    parser.add_argument("--minutes", type=float, default=10.0, help="of load and faults (default 10)")
    parser.add_argument("--servers", type=int, choices=(1, 3), default=3, help="that replicate (default 3)")
    parser.add_argument("--rate", type=float, default=10.0, help="flows begun a second (default 10)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep history, logs and data there")
    options = parser.parse_args()
    how = Conduct(
        seed=options.seed,
        length=timedelta(minutes=options.minutes),
        size=Size(servers=options.servers),
        rate=options.rate,
    )
    began = time.monotonic()

    def tell(text: str) -> None:
        print(f"{time.monotonic() - began:6.1f} s  {text}", flush=True)

    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        result = asyncio.run(conduct(how, options.keep or Path(folder), tell))
    print("\n".join(report(how, result)))
    return 1 if result.findings else 0


if __name__ == "__main__":
    sys.exit(main())
