"""The agents of the research demo under the real decisions, in memory: what is proposed, written, and taken back."""

import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from demos.research import MESSAGES, TEMPLATES, analysis, discovery, execution, planning, settings
from demos.research.reports import Reports
from handrail.testing import FlowView, World, load_template
from research.v1.research_pb2 import (
    ChangePlanProposed,
    DiscoveryCompleted,
    FileAnalysed,
    ReportWritten,
    ResearchRequested,
)

AGENTS = [each.agent for each in (discovery, analysis, planning, execution)]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "till.py").write_text("import os\nimport sys\n\n\ndef total():\n    return sys.maxsize\n")
    (folder / "cart.py").write_text("def add(a, b):\n    return a and b\n")
    return folder


@pytest.fixture
def reports(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reports:
    monkeypatch.setenv(settings.OUTPUT, str(tmp_path / "reports"))
    return Reports(tmp_path / "reports")


@pytest.fixture
async def world(reports: Reports) -> AsyncIterator[World]:
    async with World(templates=[load_template(TEMPLATES[0], MESSAGES)], agents=AGENTS) as running:
        yield running


async def asked(world: World, source: Path) -> FlowView:
    return await world.start("research", ResearchRequested(name="shop", folder=str(source)), requester="kim")


def applied(patch: Path, folder: Path) -> None:
    alone = {"GIT_CEILING_DIRECTORIES": str(folder.parent)}
    subprocess.run(["git", "apply", str(patch)], cwd=folder, check=True, env=alone)


async def test_an_approved_plan_becomes_a_report_and_a_patch_that_applies(
    world: World, source: Path, reports: Reports, tmp_path: Path
) -> None:
    flow = await asked(world, source)
    assert flow.status == "WAITING_APPROVAL"
    await world.approve(flow, voter="mia", roles=["maintainer"])
    assert flow.status == "COMPLETED"
    [written] = flow.facts(ReportWritten)
    assert (written.removed, written.refused) == (1, False)
    figures = json.loads((tmp_path / "reports" / written.report).with_suffix(".json").read_text())
    assert figures["totals"] == {"files": 2, "lines": 8, "functions": 2, "decisions": 1, "complexity": 3}
    assert "import os" in (source / "till.py").read_text(), "the source itself is not touched"
    patched = tmp_path / "patched"
    shutil.copytree(source, patched)
    applied(tmp_path / "reports" / written.patch, patched)
    assert (patched / "till.py").read_text() == "import sys\n\n\ndef total():\n    return sys.maxsize\n"


async def test_an_import_that_shares_its_line_stays_and_is_not_counted(world: World, source: Path) -> None:
    (source / "till.py").write_text("import os; total = 1\nimport sys\n")
    flow = await asked(world, source)
    await world.approve(flow, voter="mia", roles=["maintainer"])
    [written] = flow.facts(ReportWritten)
    assert written.removed == 1


async def test_a_refused_plan_becomes_a_report_that_says_so(world: World, source: Path, tmp_path: Path) -> None:
    flow = await asked(world, source)
    await world.reject(flow, voter="mia", roles=["maintainer"])
    [written] = flow.facts(ReportWritten)
    assert (flow.status, written.refused, written.patch) == ("COMPLETED", True, "")
    assert "refused by mia" in (tmp_path / "reports" / written.report).read_text()


async def test_a_plan_that_nobody_answers_is_refused_in_the_end(world: World, source: Path) -> None:
    flow = await asked(world, source)
    await world.advance(timedelta(hours=5))
    [written] = flow.facts(ReportWritten)
    assert (flow.status, written.refused) == ("COMPLETED", True)


async def test_a_folder_without_source_gives_an_empty_plan(world: World, tmp_path: Path, reports: Reports) -> None:
    (tmp_path / "empty").mkdir()
    flow = await asked(world, tmp_path / "empty")
    assert [each.files for each in flow.facts(DiscoveryCompleted)] == [0]
    await world.approve(flow, voter="mia", roles=["maintainer"])
    assert flow.status == "COMPLETED"


async def test_a_folder_that_is_not_there_is_a_matter_for_a_person(world: World, tmp_path: Path) -> None:
    flow = await asked(world, tmp_path / "nowhere")
    assert flow.status == "ESCALATED"


async def test_a_file_that_is_no_python_is_a_result(world: World, source: Path) -> None:
    (source / "broken.py").write_text("def (:\n")
    (source / "bytes.py").write_bytes(b"\xff\xfe")
    flow = await asked(world, source)
    problems = {each.path: each.problem for each in flow.facts(FileAnalysed) if each.problem}
    assert sorted(problems) == ["broken.py", "bytes.py"]
    [proposal] = flow.recorded(ChangePlanProposed)
    assert (proposal.totals.files, proposal.totals.problems) == (4, 2)


async def test_a_file_that_was_changed_meanwhile_is_left_alone(world: World, source: Path, tmp_path: Path) -> None:
    flow = await asked(world, source)
    (source / "till.py").write_text("import os\nos.sep\n")
    await world.approve(flow, voter="mia", roles=["maintainer"])
    [written] = flow.facts(ReportWritten)
    assert (written.removed, written.patch) == (0, "")
    assert "was changed since it was measured" in (tmp_path / "reports" / written.report).read_text()


async def test_p8_a_crash_between_the_report_and_its_event_leaves_one_report(
    world: World, source: Path, reports: Reports
) -> None:
    flow = await asked(world, source)
    world.crash_agent("execution", "publish")
    await world.approve(flow, voter="mia", roles=["maintainer"])
    await world.advance(timedelta(minutes=1))
    [written] = flow.facts(ReportWritten)
    assert reports.names() == [written.report]


async def test_a_compensated_research_leaves_no_report(world: World, source: Path, reports: Reports) -> None:
    flow = await asked(world, source)
    await world.approve(flow, voter="mia", roles=["maintainer"])
    await world.compensate(flow, reason="wrong folder")
    assert flow.status == "COMPENSATED"
    assert reports.names() == []


async def test_whoever_asked_does_not_approve(world: World, source: Path) -> None:
    flow = await asked(world, source)
    with pytest.raises(Exception, match="kim asked for it"):
        await world.approve(flow, voter="kim", roles=["maintainer"])
