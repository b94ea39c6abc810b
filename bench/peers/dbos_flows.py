"""`python -m bench.peers.dbos_flows URL`: the flows as DBOS workflows. It runs in the peers' environment.

Each line of stdin is `start WORK NAME` or `approve NAME`; it prints `NAME` when a flow has ended as expected.
"""

from __future__ import annotations

import asyncio
import sys
from collections import defaultdict

from dbos import DBOS, DBOSConfig, SetWorkflowID

from bench.peers import PADDING

_POOL = 20
_EXPECTED = {
    "happy": ["detect", "enrich", "notify"],
    "compensated": ["detect", "enrich", "undo-enrich", "undo-detect"],
    "approved": ["detect"],
}
_tasks: set[asyncio.Task[None]] = set()
_started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
"""Maps a flow to an event: DBOS refuses to send to a workflow that is not there yet."""


class Declined(Exception):
    """The planned failure."""


@DBOS.step()
async def step(name: str, flow: str) -> dict[str, str]:
    """A step that does nothing."""
    return {"step": name, "flow": flow, "data": PADDING}


@DBOS.step()
async def failing(name: str, flow: str) -> dict[str, str]:
    """A step that fails for good."""
    raise Declined("as planned")


@DBOS.workflow()
async def saga(work: str, flow: str) -> list[str]:
    """One flow; returns the names of its steps and undos, in order."""
    await step("detect", flow)
    if work == "approved":
        await DBOS.recv_async("approval", timeout_seconds=60)
        return ["detect"]
    done = ["detect"]
    try:
        for name, action in (("enrich", step), ("notify", failing if work == "compensated" else step)):
            await action(name, flow)
            done.append(name)
    except Declined:
        for name in list(reversed(done)):
            await step(f"undo-{name}", flow)
            done.append(f"undo-{name}")
    return done


async def main(url: str) -> None:
    """Serves commands until stdin ends."""
    config: DBOSConfig = {
        "name": "bench",
        "system_database_url": url,
        "log_level": "ERROR",
        "sys_db_pool_size": _POOL,
        "application_version": "1",
    }
    DBOS(config=config)
    await asyncio.to_thread(DBOS.launch)
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        task = asyncio.create_task(_do(*line.split()))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)


async def _do(command: str, *arguments: str) -> None:
    if command == "approve":
        await _started[arguments[0]].wait()
        await DBOS.send_async(arguments[0], True, topic="approval")
        return
    work, name = arguments
    with SetWorkflowID(name):
        handle = await DBOS.start_workflow_async(saga, work, name)
    _started[name].set()
    report = await handle.get_result()
    if report == _EXPECTED[work]:
        print(name, flush=True)
    else:
        print(f"{work} {name}: {report}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
