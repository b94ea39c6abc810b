"""The research demo's template is found in its own agents' traffic: a fan-out, and a join that counts by a field."""

from __future__ import annotations

from pathlib import Path

import pytest

from demos.research import MESSAGES, TEMPLATES, settings
from handrail.analysis.infer import infer
from handrail.testing import World, load_template
from research.v1.research_pb2 import ResearchRequested
from tests.support.traffic import structure, traffic_of
from tests.unit.demos.test_research_agents import AGENTS


async def test_the_research_template_is_found_in_its_own_traffic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.OUTPUT, str(tmp_path / "reports"))
    shipped = load_template(TEMPLATES[0], MESSAGES)
    async with World(templates=[shipped], agents=AGENTS) as world:
        flows = []
        for number in range(4):
            folder = tmp_path / f"source{number}"
            folder.mkdir()
            for file in range(number + 1):
                (folder / f"file{file}.py").write_text("import os\n")
            asked = ResearchRequested(name=folder.name, folder=str(folder))
            flow = await world.start("research", asked, requester="kim")
            if number:
                await world.approve(flow, voter="mia", roles=["maintainer"])
            else:
                await world.reject(flow, voter="mia", roles=["maintainer"])
            flows.append(flow)
        await world.compensate(flows[-1], reason="to see it undone")
        proposal = infer("research", traffic_of(*flows), shipped.contracts)
    assert structure(proposal.template) == structure(shipped.proto)
