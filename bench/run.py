"""`make bench`: Handrail and the bare three-hop chain on nats-py, taking turns in one run.

Workloads: W1 happy (three steps), W2 compensated (the third step fails for good, two undos), W3 approval (one step, and
a person approves 100 ms after the request). `flood` measures how long approvals take while another agent floods the
broker, beside the same without a flood. Shared machines are noisy: read the ratios, not the rates.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.bare import Bare
from bench.flood import work as flood
from bench.hybrid import Hybrid
from bench.loop import Figures, closed_loop
from handrail.cli.dev.broker import server_binary
from handrail.cli.dev.package import load_package
from handrail.cli.dev.processes import free_port
from handrail.cli.dev.stack import DevOptions, DevStack

PARK = 0.1
"""Seconds between the request and the approval in W3."""

WORKS = {"happy": ("W1", 500), "compensated": ("W2", 100), "approved": ("W3", 100)}
"""Maps a workload to its name in comparisons with other systems, and the number of flows in flight."""

WARM_UP = 2.0


def main() -> int:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender (default 3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of a turn (default 5)")
    parser.add_argument(
        "--works", default=",".join(WORKS), help="some of happy,compensated,approved,flood (default: the first three)"
    )
    parser.add_argument("--sync-always", action="store_true", help="sync messages to disk before the acknowledgement")
    parser.add_argument(
        "--floods", default=",".join(flood.KINDS), help=f"some of {','.join(flood.KINDS)} (default all)"
    )
    parser.add_argument(
        "--flood-rate", type=int, default=5000, help="messages a second; 0: as fast as it can (default 5000)"
    )
    options = parser.parse_args()
    works = options.works.split(",")
    if "flood" in works:
        _flood(options)
        works.remove("flood")
    if works:
        _chain(options, works)
    return 0


def _flood(options: argparse.Namespace) -> None:
    print(flood.HEAD)
    for kind in options.floods.split(","):
        # Each in a new installation: what an earlier flood left to do would be measured, too.
        with tempfile.TemporaryDirectory(prefix="bench-") as folder:
            dev = DevOptions(
                folder=Path(folder) / "handrail", package=load_package("bench.flood"), sync_always=options.sync_always
            )
            with DevStack(dev) as stack:
                stack.start()
                stack.start_agents()
                time.sleep(WARM_UP)
                uvloop.run(flood.measure(stack, kind, options.flood_rate, options.seconds))


def _chain(options: argparse.Namespace, works: Sequence[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        package = load_package("bench.chain")
        dev = DevOptions(folder=Path(folder) / "handrail", package=package, sync_always=options.sync_always)
        with DevStack(dev) as stack:
            stack.start()
            stack.start_agents()
            uvloop.run(_compare(stack, Path(folder), works, options))


async def _compare(stack: DevStack, folder: Path, works: Sequence[str], options: argparse.Namespace) -> None:
    url, server = _bare_server(folder, sync_always=options.sync_always)
    try:
        contenders: list[Bare | Hybrid] = [Bare(url, server.pid, PARK), Hybrid(stack, PARK)]
        for contender in contenders:
            await contender.open()
        await asyncio.sleep(WARM_UP)
        synced = "always" if options.sync_always else "every two minutes (the server's default)"
        print(f"{options.rounds} rounds of {options.seconds:g} s, medians; sync to disk: {synced}\n")
        print(f"{'work':<16}{'':<10}{'flows/s':>9}{'CPU ms/flow':>13}{'p50 ms':>9}{'flows':>9}")
        for work in works:
            await _one_work(contenders, work, options)
        for contender in contenders:
            await contender.close()
    finally:
        server.terminate()
        server.wait()


async def _one_work(contenders: list[Bare | Hybrid], work: str, options: argparse.Namespace) -> None:
    label, in_flight = WORKS[work]
    runs: dict[str, list[Figures]] = {contender.name: [] for contender in contenders}
    for contender in contenders:
        await closed_loop(contender, work, in_flight=in_flight, seconds=WARM_UP)
    for _ in range(options.rounds):
        for contender in contenders:
            runs[contender.name].append(
                await closed_loop(contender, work, in_flight=in_flight, seconds=options.seconds)
            )
    for name, figures in runs.items():
        rate = statistics.median(each.rate for each in figures)
        cpu = statistics.median(each.cpu_ms for each in figures)
        latency = statistics.median(each.latency_ms for each in figures)
        flows = sum(each.flows for each in figures)
        print(f"{label + ' ' + work:<16}{name:<10}{rate:>9,.0f}{cpu:>13.2f}{latency:>9.1f}{flows:>9,}")
    pairs = zip(runs["handrail"], runs["bare"], strict=True)
    ratio = statistics.median(ours.rate / bare.rate for ours, bare in pairs)
    print(f"{'':<16}handrail / bare: {ratio:.2f} of the flows/s\n", flush=True)


def _bare_server(folder: Path, *, sync_always: bool) -> tuple[str, subprocess.Popen[bytes]]:
    port = free_port()
    sync = ", sync_interval: always" if sync_always else ""
    config = folder / "bare.conf"
    config.write_text(f'listen: "127.0.0.1:{port}"\njetstream {{ store_dir: "{folder / "bare"}"{sync} }}\n')
    server = subprocess.Popen([str(server_binary()), "-c", str(config)], stderr=subprocess.DEVNULL)
    return f"nats://127.0.0.1:{port}", server


if __name__ == "__main__":
    sys.exit(main())
