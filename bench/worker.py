"""`python -m bench.worker KIND PACKAGE …`: one system under load, driven over stdin and stdout.

Each line is a JSON object. First it prints `{"ready": true}`. Then it answers each command with `{"figures": …}` or
`{"failed": "why"}`, until stdin ends. The interpreter decides which tree of Handrail is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from bench import joins, peers, timers
from bench.bare import Bare
from bench.figures import Figures
from bench.flows import Flows
from bench.installation import Installation
from bench.loop import closed_loop, paced_loop
from bench.peers.dbos import Dbos
from bench.peers.faststream import FastStream
from bench.peers.natsaga import Natsaga
from bench.peers.restate import Restate
from bench.works import PARK

Served = Bare | Restate | Dbos | Natsaga

_SETTLE = 2.0
"""Seconds that new processes have to finish their start."""


def main() -> int:
    """Serves commands until stdin ends."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("bare", "handrail", *peers.NAMES))
    parser.add_argument("package")
    parser.add_argument("--coordinators", type=int, default=1)
    parser.add_argument("--sync-always", action="store_true")
    parser.add_argument("--peers", type=Path, help="the folder with the peers' environment")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        if options.kind != "handrail":
            with _other(options, Path(folder)) as other:
                uvloop.run(_serve(other, None))
        else:
            with Installation(
                Path(folder), options.package, sync_always=options.sync_always, coordinators=options.coordinators
            ) as installation:
                uvloop.run(_serve(Flows(installation, PARK), installation))
    return 0


def _other(options: argparse.Namespace, folder: Path) -> Served:
    match options.kind:
        case "restate":
            return Restate(folder, options.peers, PARK)
        case "faststream":
            return FastStream(folder, options.peers, PARK, sync_always=options.sync_always)
        case "dbos":
            return Dbos(folder, options.peers, PARK)
        case "natsaga":
            return Natsaga(folder, options.peers, sync_always=options.sync_always)
    return Bare(folder, PARK, sync_always=options.sync_always)


async def _serve(contender: Served | Flows, installation: Installation | None) -> None:
    await contender.open()
    await asyncio.sleep(_SETTLE)
    print(json.dumps({"ready": True}), flush=True)
    try:
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await _answer(contender, installation, json.loads(line))), flush=True)
    finally:
        await contender.close()


async def _answer(
    contender: Served | Flows, installation: Installation | None, command: Mapping[str, Any]
) -> dict[str, Any]:
    try:
        return {"figures": (await _do(contender, installation, **command)).to_json()}
    except AssertionError as error:
        return {"failed": str(error)}


async def _do(contender: Served | Flows, installation: Installation | None, *, do: str, **options: Any) -> Figures:
    match do:
        case "closed":
            return await closed_loop(contender, **options)
        case "paced":
            return await paced_loop(contender, **options)
        case "timers" if isinstance(contender, Flows) and installation is not None:
            return await timers.measure(installation, contender, **options)
        case "join" if isinstance(contender, Flows):
            return await joins.measure(contender, **options)
    raise AssertionError(f'there is no command "{do}" here')


if __name__ == "__main__":
    sys.exit(main())
