"""The agents of the compliance demo under the real decisions, in memory: what is approved, asked about, withdrawn."""

import json
import shutil
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from compliance.v1.compliance_pb2 import (
    ApprovalVerified,
    ApprovalWithdrawn,
    Check,
    CheckCompleted,
    CheckFailed,
    DistributionApproved,
    DistributionFound,
    TamperingFound,
)
from demos.compliance import (
    MESSAGES,
    TEMPLATES,
    auditor,
    binaries,
    integrity,
    inventory,
    licences,
    metadata,
    names,
    register,
    settings,
)
from demos.compliance.approvals import Register
from demos.compliance.copies import tamper
from demos.compliance.installed import Environment, Installed
from handrail.testing import FlowView, World, load_template
from handrail.v1.decision_pb2 import Choice, Resolved
from handrail.v1.failure_pb2 import StepFailed
from tests.support.distributions import METADATA, install

AGENTS = [each.agent for each in (inventory, licences, integrity, metadata, binaries, names, register, auditor)]
NO_LICENCE = METADATA.replace("License-Expression: MIT\n", "")

# Longer than any retry of the template takes.
A_WHILE = timedelta(minutes=15)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An environment and a register of their own for the agents, which keep what they opened."""
    monkeypatch.setenv(settings.ENVIRONMENTS, json.dumps({"made-up": str(site)}))
    monkeypatch.setenv(settings.REGISTER, str(tmp_path / "register.sqlite"))
    opened = (register.register, licences.policy, names.known)
    for each in opened:
        each.cache_clear()
    yield tmp_path
    for each in opened:
        each.cache_clear()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with World(templates=[load_template(TEMPLATES[0], MESSAGES)], agents=AGENTS) as world:
        yield world


async def find(world: World, installed: Installed) -> FlowView:
    found = DistributionFound(distribution=installed.distribution)
    return await world.start("approval", found, key=installed.key, by="inventory")


def in_force(folder: Path) -> list[tuple[str, tuple[str, ...]]]:
    """The approvals that stand, with their remarks."""
    kept = Register(folder / "register.sqlite")
    withdrawn = kept.withdrawn()
    return [(each.distribution, each.remarks) for each in kept.approvals() if each.approval_id not in withdrawn]


def failed(flow: FlowView) -> list[Check.ValueType]:
    return sorted(each.check for each in flow.facts(CheckFailed))


@pytest.mark.parametrize("seed", [None, 1, 2])
async def test_what_every_check_passes_is_approved_and_verified(seed: int | None, site: Path, folder: Path) -> None:
    template = load_template(TEMPLATES[0], MESSAGES)
    async with World(templates=[template], agents=AGENTS, seed=seed) as world:
        flow = await find(world, install(site, "good"))
        assert flow.status == "COMPLETED"
        assert sorted(each.check for each in flow.facts(CheckCompleted)) == sorted(Check.values())[1:]
        assert len(flow.facts(ApprovalVerified)) == 1
        assert in_force(folder) == [("good==1.0@made-up", ())]
        # The coordinator has no part in it: one message for what was found, five checks, an approval, its verification.
        assert len(flow.history) == 8


async def test_one_failed_check_is_a_remark(world: World, site: Path, folder: Path) -> None:
    flow = await find(world, install(site, "unlicensed", metadata=NO_LICENCE))
    assert flow.status == "COMPLETED"
    assert failed(flow) == [Check.CHECK_LICENCES]
    assert in_force(folder) == [("unlicensed==1.0@made-up", ("licences",))]


def two_failures(site: Path) -> Installed:
    return install(site, "two-failures", metadata=NO_LICENCE, also="Requires-Dist: gone\n")


@pytest.mark.parametrize("seed", range(3))
async def test_two_failed_checks_wait_for_a_person_who_lets_it_go_on(seed: int, site: Path, folder: Path) -> None:
    async with World(templates=[load_template(TEMPLATES[0], MESSAGES)], agents=AGENTS, seed=seed) as world:
        flow = await find(world, two_failures(site))
        await world.advance(A_WHILE)
        assert flow.status == "ESCALATED"
        assert ["two_checks_failed" in each.reason for each in flow.escalations] == [True]
        assert in_force(folder) == []
        await world.resolve(flow, Choice.CHOICE_RESUME)
        await world.advance(A_WHILE)
        assert flow.status == "COMPLETED"
        assert failed(flow) == [Check.CHECK_LICENCES, Check.CHECK_METADATA]
        assert in_force(folder) == [("two-failures==1.0@made-up", ("licences", "metadata"))]


async def test_two_failed_checks_wait_for_a_person_who_refuses(world: World, site: Path, folder: Path) -> None:
    flow = await find(world, two_failures(site))
    await world.resolve(flow, Choice.CHOICE_CANCEL)
    await world.advance(A_WHILE)
    assert flow.status == "CANCELLED"
    assert flow.recorded(DistributionApproved) == []
    assert in_force(folder) == []


@pytest.mark.parametrize("name, licence", [("colourama", "MIT"), ("honest", "MPL-2.0"), ("copyleft", "AGPL-3.0-only")])
async def test_a_grave_finding_waits_for_a_person_by_itself(
    name: str, licence: str, world: World, site: Path, folder: Path
) -> None:
    flow = await find(world, install(site, name, metadata=METADATA.replace("MIT", licence)))
    assert flow.status == "ESCALATED"
    assert len(failed(flow)) == 1
    assert ["grave_finding" in each.reason for each in flow.escalations] == [True]
    await world.resolve(flow, Choice.CHOICE_RESUME)
    await world.advance(A_WHILE)
    assert flow.status == "COMPLETED"
    assert len(flow.recorded(Resolved)) == 1


async def test_what_was_changed_before_it_is_checked_is_never_approved(world: World, site: Path, folder: Path) -> None:
    installed = install(site, "changed")
    tamper(installed, rewrite_record=False)
    flow = await find(world, installed)
    await world.advance(A_WHILE)
    assert flow.status == "COMPENSATED"
    assert [each.findings[0].subject for each in flow.facts(TamperingFound)] == ["changed/__init__.py"]
    assert flow.recorded(DistributionApproved) == []
    assert in_force(folder) == []


@pytest.mark.parametrize("rewrite_record", [False, True])
async def test_what_is_changed_after_its_approval_has_it_withdrawn(
    rewrite_record: bool, world: World, site: Path, folder: Path
) -> None:
    installed = install(site, "later")
    world.stop_agent("auditor")
    flow = await find(world, installed)
    assert flow.status == "RUNNING"
    assert in_force(folder) == [("later==1.0@made-up", ())]
    tamper(installed, rewrite_record=rewrite_record)
    await world.start_agent("auditor")
    assert flow.status == "COMPENSATED"
    (tampering,) = flow.facts(TamperingFound)
    assert tampering.findings[0].code == "FINGERPRINT_DIFFERS"
    assert ("FILE_CHANGED" in {each.code for each in tampering.findings}) != rewrite_record
    assert [each.approval_id for each in flow.recorded(ApprovalWithdrawn)] == [tampering.approval_id]
    assert in_force(folder) == []


async def test_what_is_gone_when_it_is_verified_has_its_approval_withdrawn(
    world: World, site: Path, folder: Path
) -> None:
    installed = install(site, "gone")
    world.stop_agent("auditor")
    flow = await find(world, installed)
    shutil.rmtree(installed.folder)
    shutil.rmtree(site / "gone")
    await world.start_agent("auditor")
    assert flow.status == "COMPENSATED"
    assert in_force(folder) == []


async def test_p8_a_crash_between_the_registers_commit_and_the_publish_approves_once(
    world: World, site: Path, folder: Path
) -> None:
    world.crash_agent("register", "publish")
    flow = await find(world, install(site, "crash"))
    assert flow.status == "RUNNING"
    assert in_force(folder) == [("crash==1.0@made-up", ())]
    await world.advance(A_WHILE)
    assert flow.status == "COMPLETED"
    assert len(Register(folder / "register.sqlite").approvals()) == 1


async def test_p8_a_crash_between_the_withdrawals_commit_and_the_publish_withdraws_once(
    world: World, site: Path, folder: Path
) -> None:
    flow = await find(world, install(site, "crash"))
    world.crash_agent("register", "publish")
    await world.compensate(flow, reason="approved by mistake")
    await world.advance(A_WHILE)
    assert flow.status == "COMPENSATED"
    assert len(flow.recorded(ApprovalWithdrawn)) == 1
    assert in_force(folder) == []


async def test_an_approval_that_the_register_does_not_hold_is_a_matter_for_a_person(
    world: World, site: Path, folder: Path
) -> None:
    flow = await find(world, install(site, "lost"))
    (folder / "register.sqlite").unlink()
    register.register.cache_clear()
    await world.compensate(flow, reason="approved by mistake")
    await world.advance(A_WHILE)
    assert flow.status == "ESCALATED"
    assert ["is not in the register" in each.text for each in flow.recorded(StepFailed)] == [True]


async def test_what_can_hardly_be_read_is_an_outcome(world: World, site: Path, folder: Path) -> None:
    (site / "empty-1.dist-info").mkdir()
    installed = Environment("made-up", site).at("empty-1.dist-info")
    assert installed is not None
    flow = await find(world, installed)
    assert flow.status == "ESCALATED"
    assert flow.recorded(StepFailed) == []


async def test_an_agent_reads_no_environment_that_it_was_not_told_of(world: World, site: Path) -> None:
    installed = install(site, "good")
    installed.distribution.environment = "elsewhere"
    flow = await find(world, installed)
    assert flow.status == "ESCALATED"
    assert {each.retryable for each in flow.recorded(StepFailed)} == {False}
    assert flow.facts(CheckCompleted) == []


async def test_inventory_begins_a_flow_for_each_distribution_and_none_again_after_a_restart(
    world: World, site: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    install(site, "one")
    install(site, "two")
    caplog.set_level("INFO")
    await world.run_sources("inventory")
    assert "2 flows begun, 0 known before" in caplog.text
    await world.run_sources("inventory")
    assert "0 flows begun, 2 known before" in caplog.text
    assert [each for each, _ in in_force(folder)] == ["one==1.0@made-up", "two==1.0@made-up"]
