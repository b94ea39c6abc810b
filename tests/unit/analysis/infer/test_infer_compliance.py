"""The compliance demo's template is found in its own agents' traffic: checks side by side, a counted join, rules."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from compliance.v1.compliance_pb2 import DistributionFound
from demos.compliance import MESSAGES, TEMPLATES, licences, names, register, settings
from demos.compliance.copies import tamper
from demos.compliance.installed import Installed
from handrail.analysis.infer import infer
from handrail.testing import FlowView, World, load_template
from handrail.v1.decision_pb2 import Choice
from handrail.v1.template_pb2 import EFFECT_UNDOABLE
from tests.support.distributions import METADATA, install
from tests.support.traffic import structure, traffic_of
from tests.unit.demos.test_compliance_agents import A_WHILE, AGENTS, NO_LICENCE, two_failures


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment and a register of its own."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.setenv(settings.ENVIRONMENTS, json.dumps({"made-up": str(site)}))
    monkeypatch.setenv(settings.REGISTER, str(tmp_path / "register.sqlite"))
    for each in (register.register, licences.policy, names.known):
        each.cache_clear()
    return site


async def test_the_compliance_template_is_found_in_its_own_traffic(site: Path) -> None:
    shipped = load_template(TEMPLATES[0], MESSAGES)
    async with World(templates=[shipped], agents=AGENTS) as world:

        async def find(installed: Installed) -> FlowView:
            found = DistributionFound(distribution=installed.distribution)
            return await world.start("approval", found, key=installed.key, by="inventory")

        changed = install(site, "changed")
        tamper(changed, rewrite_record=False)
        grave = METADATA.replace("MIT", "AGPL-3.0-only")
        flows = [
            await find(install(site, "good")),
            await find(install(site, "unlicensed", metadata=NO_LICENCE)),
            await find(two_failures(site)),
            await find(install(site, "colourama")),
            await find(install(site, "grave", metadata=grave)),
            await find(changed),
        ]
        for flow in flows[2:5]:
            await world.resolve(flow, Choice.CHOICE_RESUME)
        later = install(site, "later")
        world.stop_agent("auditor")
        flows.append(await find(later))
        tamper(later, rewrite_record=True)
        await world.start_agent("auditor")
        await world.advance(A_WHILE)
    inferred = infer("approval", traffic_of(*flows), shipped.contracts)
    found, meant = structure(inferred.template), structure(shipped.proto)
    # Nothing native is in these distributions: what a check answers that never failed is not on record.
    for step, each in meant["steps"].items():
        assert found["steps"][step]["emits"] <= each["emits"]
        found["steps"][step]["emits"] = each["emits"]
    assert found == meant
    (approve,) = (step for step in inferred.template.steps if step.name == "approve")
    assert approve.effect == EFFECT_UNDOABLE
    assert {rule.name: (rule.when, rule.then) for rule in inferred.template.rules} == {
        rule.name: (rule.when, rule.then) for rule in shipped.proto.rules
    }
    assert not inferred.findings
