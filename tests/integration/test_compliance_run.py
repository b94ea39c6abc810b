"""The compliance demo, run whole on an environment that the test made; the evidence is read by means of its own."""

import hashlib
import json
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import raw_stream
from tests.support.distributions import METADATA, install

ROOT = Path(__file__).parents[2]

ELF = b"\x7fELF\x02\x01\x01" + bytes(57)
CLEAN = ("alpha", "beta-two", "gamma", "delta", "epsilon")


def demo(*arguments: str | Path, timeout: float = 100) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "demos.compliance", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)


def make_environment(site: Path) -> None:
    for name in CLEAN:
        install(site, name)
    # One failed check: a remark.
    install(site, "sly", files={"sly/__init__.py": b"", "sly/data.txt": ELF})
    install(site, "unlicensed", metadata=METADATA.replace("License-Expression: MIT\n", ""))
    # Two failed checks, or a grave one: a person.
    install(site, "two", metadata=METADATA.replace("MIT", "Ours-1.0"), also="Requires-Dist: not-there\n")
    install(site, "copyleft", metadata=METADATA.replace("MIT", "AGPL-3.0-only"))
    (site / "empty-1.0.dist-info").mkdir()
    # Changed since it was installed.
    install(site, "changed")
    (site / "changed" / "__init__.py").write_bytes(b"import os\n")


def fingerprints(site: Path) -> dict[str, str]:
    """A hash over everything that is in an environment, by file."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(site.rglob("*")) if path.is_file()
    }


def rows(output: str) -> dict[str, list[str]]:
    """The rows of the tables, by their first column."""
    lines = [line.strip() for line in output.splitlines() if line.startswith("  ") and "  " in line.strip()]
    return {first.strip(): rest.split() for first, _, rest in (line.partition("  ") for line in lines)}


def read_register(path: Path) -> tuple[dict[str, list[str]], set[str]]:
    """The remarks by distribution, and the distributions whose approval was withdrawn."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    approvals = connection.execute("SELECT approval_id, distribution, remarks FROM approvals").fetchall()
    withdrawn = {id_ for (id_,) in connection.execute("SELECT approval_id FROM withdrawals")}
    connection.close()
    assert len({distribution for _, distribution, _ in approvals}) == len(approvals)
    remarks = {distribution: json.loads(remarks) for _, distribution, remarks in approvals}
    return remarks, {distribution for id_, distribution, _ in approvals if id_ in withdrawn}


def test_every_distribution_ends_as_its_findings_have_it(tmp_path: Path) -> None:
    site, keep = tmp_path / "site", tmp_path / "keep"
    make_environment(site)
    before = fingerprints(site)

    run = demo("--site", site, "--seed", "3", "--keep", keep)
    assert run.returncode == 0, run.stdout + run.stderr
    assert fingerprints(site) == before

    plan = json.loads((keep / "plan.json").read_text("utf-8"))
    assert set(plan["tampering"].values()) == {"NONE", "BEFORE", "AFTER", "HIDDEN"}
    assert plan["answers"].keys() == {"two==1.0@here", "copyleft==1.0@here", "empty==1.0@here"}
    assert Counter(plan["answers"].values()) == {"RESUME": 2, "CANCEL": 1}

    allowed = {key for key, answer in plan["answers"].items() if answer == "RESUME"}
    later = {key for key, kind in plan["tampering"].items() if kind in ("AFTER", "HIDDEN")}
    untouched = {key for key, kind in plan["tampering"].items() if kind == "NONE"}
    clean = {f"{name}==1.0@here" for name in CLEAN}
    remarks, withdrawn = read_register(keep / "register.sqlite")
    assert remarks.keys() == clean | untouched | later | allowed | {"sly==1.0@here", "unlicensed==1.0@here"}
    assert withdrawn == later
    assert {key for key, failed in remarks.items() if failed} == allowed | {"sly==1.0@here", "unlicensed==1.0@here"}
    assert remarks["sly==1.0@here"] == ["binaries"]
    assert remarks["unlicensed==1.0@here"] == ["licences"]

    table = rows(run.stdout)
    assert table["approved"] == ["5", "1", "6"]
    assert table["approved with a remark"] == ["2", "0", "2"]
    assert table["approved by a person"] == ["2", "0", "2"]
    assert table["refused by a person"] == ["1", "0", "1"]
    assert table["tampered with, never approved"] == ["1", "1", "2"]
    assert table["tampered with, approval withdrawn"] == ["0", "2", "2"]
    assert table["in force"] == ["10"]
    assert table["withdrawn"] == ["2"]
    assert table["LICENCE_DENIED"] == ["1"]

    # Nobody was asked but about those three, and each fact is in the stream once.
    messages = raw_stream.read(keep / "nats" / "data", tmp_path)
    facts = Counter(raw.type for raw in messages if raw.kind in ("event", "undone"))
    assert facts["compliance.v1.DistributionFound"] == 15
    assert facts["compliance.v1.DistributionApproved"] == 12
    assert facts["compliance.v1.ApprovalVerified"] == 10
    assert facts["compliance.v1.ApprovalWithdrawn"] == 2
    assert facts["compliance.v1.TamperingFound"] == 4
    asked = {raw.flow_id for raw in messages if raw.type == "handrail.v1.Escalated"}
    assert len(asked) == 3


@pytest.mark.parametrize(
    "arguments, status, says",
    [
        (["--site", "/nowhere/at/all"], 1, "/nowhere/at/all: No such file or directory"),
        (["--policy", __file__], 1, "is not a policy"),
        (["--site", str(ROOT / "docs")], 0, "nothing is installed"),
    ],
)
def test_an_input_that_holds_nothing_is_said_in_a_line(arguments: list[str], status: int, says: str) -> None:
    run = demo(*arguments, timeout=30)
    assert run.returncode == status
    assert says in run.stdout + run.stderr
    assert "Traceback" not in run.stderr
    assert len((run.stdout + run.stderr).splitlines()) == 1
