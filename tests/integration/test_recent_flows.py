"""Where no index can be asked, the first digits of an id that was printed lately name its flow."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

from tests.support import flows
from tests.support.api import running_api
from tests.support.dev import handrail_process
from tests.support.mesh import Mesh, publish


async def test_without_an_index_the_flows_that_were_printed_are_known(mesh: Mesh, tmp_path: Path) -> None:
    await mesh.put(flows.template())
    await publish(mesh.bus, flows.start())
    async with running_api(mesh.bus, tmp_path) as api:
        token = api.token("olga", "operator")
        env = {"HANDRAIL_ADDRESS": api.address, "HANDRAIL_TOKEN": token, "XDG_STATE_HOME": str(tmp_path)}

        async def run(*words: str) -> subprocess.CompletedProcess[str]:
            return await asyncio.to_thread(handrail_process, "flow", *words, env=env)

        assert (await run("show", flows.FLOW_ID[:6])).returncode == 4
        assert flows.FLOW_ID in (await run("list", "--scan")).stdout
        seen = await run("show", flows.FLOW_ID[:6])
        assert flows.FLOW_ID in seen.stdout, seen.stderr
