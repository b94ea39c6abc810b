"""`python bench/console.py`: how long the console takes for its pages, with so many flows in the index.

The index is made from nothing (`bench/index_of.py`) on SQLite; `--index FILE` keeps it, and uses it again. The index is
served and the coordinator runs in this process, the console in one of its own. The time is that of a request, from a
client on this machine: the first one that a page of a session asks is left out. Flows that only the index has can't be
opened: the page of a flow is that of a recorded one, with the messages that its template has it exchange.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import httpx
from sqlalchemy import Engine

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.index_of import TYPES, fill
from handrail.coordinator.lists.index import IndexSettings
from handrail.mesh.bus import NatsBus
from handrail.mesh.shared_secret import new_secret
from handrail.v1.flow_service_pb2 import ListFlowsRequest, ListFlowsResponse
from handrail.visibility.index.database import open_engine
from handrail.visibility.serve.server import IndexServer, ServeSettings
from tests.support import flows
from tests.support.api import running_api
from tests.support.console import console_process
from tests.support.indexed import ask
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import record, refund_template

PAGES = {
    "overview": "/",
    "flows": "/flows",
    "flows, stuck": "/flows?filter=stuck",
    "flows of a type and status": "/flows?filter=flow_type+%3D+order+status+%3D+CANCELLED",
    "flows, changed last": "/flows?order=updated+desc",
    "agents": "/agents",
}


def main() -> int:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=1_000_000, help="flows in the index (default 1000000)")
    parser.add_argument("--index", type=Path, metavar="FILE", help="keep the index in this file")
    parser.add_argument("--times", type=int, default=60, help="how often each page is asked for (default 60)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, running_server(Path(name)) as server:
        asyncio.run(_measure(server, Path(name), options))
    return 0


async def _measure(server: NatsServer, folder: Path, options: argparse.Namespace) -> None:
    engine = _index(options.index or folder / "index.db", options.flows)
    secret = folder / "secret"
    secret.write_text(new_secret())
    async with await NatsBus.connect(server.settings()) as bus:
        index = IndexServer(engine, bus, ServeSettings(address="127.0.0.1:0", secret=secret))
        settings = IndexSettings(address=f"127.0.0.1:{await index.start()}", secret=secret)
        async with running_api(bus, folder, index=settings, decides=False) as api:
            mesh = Mesh(bus, api.replica.catalog)
            await mesh.put(*(flows.template(each) for each in TYPES if each != "refund"), refund_template())
            await record(bus, 1, seed=1)
            (flow,) = (await ask(api, "FlowService/ListFlows", ListFlowsRequest(scan=True), ListFlowsResponse)).flows
            with console_process(api.address) as origin:
                async with httpx.AsyncClient(base_url=origin, timeout=30) as client:
                    headers = {"origin": origin}
                    token = api.token("vera", "viewer")
                    await client.post("/sign-in", data={"token": token}, headers=headers)
                    print("| page | p50 ms | p95 ms | kB |\n| --- | --- | --- | --- |")
                    for page, path in {**PAGES, "a flow": f"/flows/{flow.flow_id}"}.items():
                        print(await _line(client, page, path, options.times), flush=True)
        await index.stop()
    engine.dispose()


def _index(file: Path, number: int) -> Engine:
    """The index in this file, made if there is none."""
    is_made = file.exists()
    engine = open_engine(f"sqlite:///{file}")
    if not is_made:
        fill(engine, number)
    return engine


async def _line(client: httpx.AsyncClient, page: str, path: str, times: int) -> str:
    """The line of a page: p50 and p95 of its requests, and its size."""
    took: list[float] = []
    size = 0
    for _ in range(times + 1):
        began = time.perf_counter()
        answer = await client.get(path)
        took.append((time.perf_counter() - began) * 1000)
        assert answer.status_code == 200, answer.text
        size = len(answer.content)
    took = took[1:]
    return (
        f"| {page} | {statistics.median(took):.0f} | {statistics.quantiles(took, n=20)[-1]:.0f} | {size / 1000:.0f} |"
    )


if __name__ == "__main__":
    sys.exit(main())
