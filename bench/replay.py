"""`python bench/replay.py`: flows per second of a what-if on recorded refunds, over a real broker and a gRPC channel.

The refunds are recorded first, all interleaved; then a coordinator replays them and does nothing else. Shared machines
are noisy: the best round is the most telling.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parents[1]))

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.v1 import template_service_pb2 as pb
from tests.integration.test_replay_policy import changed, replayed
from tests.support.api import running_api
from tests.support.flows import stored
from tests.support.nats_server import NatsServer, running_server
from tests.support.recorded_refunds import record, refund_template


def main() -> int:
    """Runs the benchmark and prints a line for each round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flows", type=int, default=20_000, help="recorded refunds (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="replays (default 3)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, running_server(Path(folder) / "nats") as server:
        uvloop.run(_measure(server, Path(folder), options))
    return 0


async def _measure(server: NatsServer, folder: Path, options: argparse.Namespace) -> None:
    async with await NatsBus.connect(server.settings()) as bus:
        await ensure_streams(bus)
        await Catalog(bus).put(stored(refund_template()))
        messages = await record(bus, options.flows, seed=1)
        print(f"{options.flows:,} refunds, {messages:,} messages")
        async with running_api(bus, folder, decides=False) as api:
            request = pb.ReplayPolicyRequest(template=refund_template(changed()).proto, max_differences=1)
            for _ in range(options.rounds):
                await asyncio.sleep(1)
                began = time.perf_counter()
                summary, _, _ = await replayed(api, request)
                took = time.perf_counter() - began
                print(f"{summary.flows:,} flows in {took:.2f} s: {summary.flows / took:,.0f} flows/s", flush=True)


if __name__ == "__main__":
    sys.exit(main())
