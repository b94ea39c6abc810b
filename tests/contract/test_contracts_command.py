"""`handrail contracts` in a scratch clone: what it finds, what it says of bad input, and how it ends."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from handrail.cli.exit_codes import Exit
from tests.contract.scratch import clone, commit, edit, git
from tests.support.dev import handrail

PAYMENTS = Path("proto/payments/v1/payments.proto")
RISK = r"^  Risk risk = 4 \[\(buf\.validate\.field\)\.enum = \{\n.*\n.*\n  \}\];\n"
USAGE = (Exit.USAGE, "")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clone(tmp_path_factory.mktemp("clone"))


@pytest.fixture
def project(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone that the command runs in."""
    subprocess.run(["cp", "-a", f"{pristine}/.", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def impact(*arguments: str) -> subprocess.CompletedProcess[str]:
    return handrail("contracts", "impact", *arguments)


def complaint(*arguments: str) -> tuple[int, str]:
    """The exit code and the one line on stderr of a command that says nothing else."""
    done = handrail("contracts", *arguments)
    assert done.stdout == ""
    assert done.stderr.startswith("handrail: ")
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


def test_the_contracts_as_they_stand_pass(project: Path) -> None:
    done = handrail("contracts", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "no findings" in done.stdout
    done = impact("--against", "main")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 breaking, 0 tightened, 0 compatible; nobody is affected" in done.stdout


def test_a_check_puts_lint_form_and_breaking_into_one_list(project: Path) -> None:
    edit(
        project / PAYMENTS,
        r"^  // email to notify\.\n  string email = 5.*\n\}\n\n// SmallRefund",
        "}\n\n// SmallRefund",
    )
    edit(project / PAYMENTS, r"^  // transfer_id of the ledger\.\n", "")
    edit(project / PAYMENTS, r"^message RefundPaid \{", "message RefundPaid  {")
    done = handrail("contracts", "check", "--output", "json")
    assert done.returncode == 1
    found = json.loads(done.stdout)["findings"]
    assert [(each["check"], each["rule"]) for each in found] == [
        ("lint", "COMMENT_FIELD"),
        ("format", "FORMAT"),
        ("breaking", "FIELD_NO_DELETE"),
    ]
    assert {each["path"] for each in found} == {str(PAYMENTS)}
    assert found[0]["line"] > 1
    text = handrail("contracts", "check").stdout
    assert f'breaking: {PAYMENTS}:49:1: Previously present field "5" with name "email"' in text


def test_a_check_without_released_contracts_says_that_nothing_can_break(project: Path) -> None:
    (project / "gen/released.binpb").unlink()
    done = handrail("contracts", "check")
    assert done.returncode == 0
    assert "nothing is released yet" in done.stdout


def test_a_proto_that_does_not_compile_is_a_finding_of_the_check(project: Path) -> None:
    edit(project / PAYMENTS, r"^message RefundPaid \{", "message {")
    done = handrail("contracts", "check")
    assert done.returncode == 1
    assert f"lint: {PAYMENTS}:122:" in done.stdout
    assert "breaking" not in done.stdout
    code, text = complaint("impact", "--against", "main")
    assert code == Exit.USAGE
    assert "the contracts don't compile: proto/payments/v1/payments.proto:122:" in text


def test_a_removed_field_names_agents_template_and_gates(project: Path) -> None:
    edit(project / PAYMENTS, RISK, "")
    template = project / "agents/demos/payments/refund.yaml"
    rule = "  - {name: risky, on: [payments.v1.ChargebackEnriched], when: event.risk > 2, then: ESCALATE}\n"
    template.write_text(template.read_text().replace("gates:\n", f"{rule}gates:\n"))
    done = impact("--against", "main", "--output", "json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    (change,) = report["changes"]
    assert (change["code"], change["level"], change["name"]) == (
        *("FIELD_REMOVED", "BREAKING_WIRE", "payments.v1.ChargebackEnriched.risk"),
    )
    changed, committed = change["hits"]
    assert (changed["origin"], committed["origin"]) == (
        "agents/demos/payments/refund.yaml",
        "main:agents/demos/payments/refund.yaml",
    )
    assert changed["agents"] == ["enrichment", "refunds"]
    (reading,) = changed["readings"]
    assert (reading["kind"], reading["name"]) == ("rule", "risky")
    assert "risk" in reading["problem"]
    assert report["usage"] is None
    assert "no coordinator was asked" in report["notes"][0]


def test_markdown_is_a_section_a_change_with_a_table_and_what_to_do(project: Path) -> None:
    edit(project / PAYMENTS, RISK, "")
    text = impact("--against", "main", "--output", "markdown").stdout
    assert text.startswith("## Contracts against `main`\n")
    assert "### BREAKING_WIRE: `payments.v1.ChargebackEnriched.risk`\n" in text
    assert (
        "| refund@1 (agents/demos/payments/refund.yaml) | agent enrichment "
        "| emits payments.v1.ChargebackEnriched in step enrich |\n"
    ) in text
    assert "- **Instead:** keep it" in text


def test_a_compatible_change_passes_both(project: Path) -> None:
    edit(
        project / PAYMENTS,
        r"^message RefundPaid \{\n",
        "message RefundPaid {\n  // note for the books.\n  string note = 99;\n",
    )
    commit(project, "Add a note")
    assert handrail("contracts", "check").returncode == 0
    done = impact("--against", "main~1")
    assert done.returncode == 0
    assert "COMPATIBLE payments.v1.RefundPaid.note" in done.stdout


def test_a_narrower_rule_fails_only_where_that_was_asked_for(project: Path) -> None:
    edit(project / PAYMENTS, r"^(  string reason = 4 .*)max_len = 512", r"\1max_len = 100")
    done = impact("--against", "gen/released.binpb")
    assert done.returncode == 0
    assert "TIGHTENED payments.v1.ChargebackReceived.reason" in done.stdout
    assert impact("--against", "main", "--fail-on", "tightened").returncode == 1
    edit(project / PAYMENTS, RISK, "")
    assert impact("--against", "main", "--fail-on", "never").returncode == 0


def test_two_images_are_compared_without_buf_and_without_git(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    image = "gen/released.binpb"
    assert impact("--against", image, "--contracts", image).returncode == 0


def test_a_module_stands_for_its_own_files_alone(project: Path) -> None:
    done = impact("--against", "gen/released.binpb", "--contracts", "demos.payments")
    assert (done.returncode, done.stderr) == (0, "")
    assert "0 breaking" in done.stdout


def test_a_ref_from_before_the_project_is_told_so(project: Path) -> None:
    git(project, "rm", "--quiet", "buf.yaml")
    commit(project, "No project yet")
    git(project, "checkout", "--quiet", "HEAD~1", "--", "buf.yaml")
    code, text = complaint("impact", "--against", "HEAD")
    assert code == Exit.USAGE
    assert "HEAD has no buf.yaml" in text


@pytest.mark.parametrize("content", [b"", b"hello", b"\x0a\x03abc"], ids=["empty", "text", "damaged"])
def test_an_image_that_is_none_is_refused(project: Path, content: bytes) -> None:
    (project / "image.binpb").write_bytes(content)
    code, text = complaint("impact", "--against", "image.binpb")
    assert code == Exit.USAGE
    assert "image.binpb is not an image of contracts" in text
    if content:
        code, text = complaint("check", "--against", "image.binpb")
        assert (code, text.startswith("handrail: buf breaking: ")) == (Exit.USAGE, True)


@pytest.mark.parametrize(
    "arguments,text",
    [
        (("impact", "--against", "nowhere"), '"nowhere" is neither a file nor a git ref here'),
        (("impact", "--against", "--help~1"), "expected one argument"),
        (("impact", "--against", "main", "--contracts", "no.such.module"), "no.such.module can't be imported"),
        (("impact", "--against", "main", "--contracts", "nope.binpb"), "nope.binpb can't be"),
        (("impact", "--against", "main", "--template", "Makefile"), "Makefile: line "),
        (("impact", "--against", "main", "--template", "nope.yaml"), "nope.yaml can't be read"),
        (("check", "--against", "nope.binpb"), "image nope.binpb does not exist"),
    ],
)
def test_bad_arguments_end_with_one_line_and_usage(project: Path, arguments: tuple[str, ...], text: str) -> None:
    done = handrail("contracts", *arguments)
    assert done.returncode == Exit.USAGE
    assert text in done.stderr.splitlines()[-1]


def test_live_without_a_coordinator_says_that_nobody_answers(project: Path) -> None:
    code, text = complaint("impact", "--against", "LIVE", "--address", "127.0.0.1:1")
    assert code == Exit.UNREACHABLE
    assert "no coordinator answers at 127.0.0.1:1" in text


def test_a_folder_without_a_project_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (("check",), ("impact", "--against", "main")):
        code, text = complaint(*arguments)
        assert code == Exit.USAGE
        assert "there is no buf.yaml" in text


def test_without_buf_it_says_how_to_get_it(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    for arguments in (("check",), ("impact", "--against", "main")):
        code, text = complaint(*arguments)
        assert code == Exit.USAGE
        assert "pip install buf-bin" in text


def test_without_git_it_says_that_an_image_will_do(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # buf is beside the interpreter
    code, text = complaint("impact", "--against", "main")
    assert code == Exit.USAGE
    assert "git is not installed; name an image instead" in text


def test_a_folder_that_is_no_repository_is_told_so(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(project / "nowhere"))
    code, text = complaint("impact", "--against", "main")
    assert code == Exit.USAGE
    assert "not in a git repository" in text


def test_a_ref_whose_contracts_do_not_compile_is_named(project: Path) -> None:
    edit(project / PAYMENTS, r"^message RefundPaid \{", "message {")
    commit(project, "Break it")
    edit(project / PAYMENTS, r"^message \{", "message RefundPaid {")
    code, text = complaint("impact", "--against", "HEAD")
    assert code == Exit.USAGE
    assert "HEAD: the contracts don't compile" in text


CONSUMERS = Path("contracts/consumers.yaml")


def write_consumers(project: Path, text: str) -> None:
    (project / CONSUMERS).parent.mkdir(exist_ok=True)
    (project / CONSUMERS).write_text(text)


def test_whoever_is_named_as_a_consumer_is_named_with_what_hits_it(project: Path) -> None:
    write_consumers(
        project,
        """consumers:
          - {name: warehouse, contact: data@example.com, reads: [payments.v1.*]}
          - {name: portal, contact: "#portal", calls: [handrail.v1.FlowService]}
        """,
    )
    edit(project / PAYMENTS, RISK, "")
    done = impact("--against", "main", "--output", "json")
    (change,) = json.loads(done.stdout)["changes"]
    assert change["consumers"] == [
        {
            "name": "warehouse",
            "contact": "data@example.com",
            "reads": ["payments.v1.ChargebackEnriched"],
            "sends": [],
            "calls": [],
        }
    ]
    text = impact("--against", "main").stdout
    assert "consumer warehouse  reads payments.v1.ChargebackEnriched; tell data@example.com" in text
    markdown = impact("--against", "main", "--output", "markdown").stdout
    assert "| | consumer warehouse | reads payments.v1.ChargebackEnriched; tell data@example.com |" in markdown


def test_a_consumer_of_what_is_not_there_is_a_finding(project: Path) -> None:
    write_consumers(project, "consumers: [{name: etl, contact: data@example.com, reads: [payments.v1.RefundPayed]}]")
    done = handrail("contracts", "check", "--only", "breaking")
    assert done.returncode == 1
    assert (
        f'breaking: {CONSUMERS}: consumer etl names "payments.v1.RefundPayed", which no contract defines' in done.stdout
    )


def test_a_file_of_consumers_that_is_none_is_refused(project: Path) -> None:
    write_consumers(project, "consumers: [{name: etl}]")
    for arguments in (("check",), ("impact", "--against", "main")):
        code, text = complaint(*arguments)
        assert (code, f"{CONSUMERS}: consumer 1 needs a name and a contact" in text) == (Exit.USAGE, True)


def test_a_field_newly_required_in_a_request_fails_the_check_and_the_impact(project: Path) -> None:
    edit(
        project / "proto/handrail/v1/flow_service.proto",
        r"^message CancelFlowRequest \{\n",
        "message CancelFlowRequest {\n  // ticket of the change.\n"
        "  string ticket = 1000 [(buf.validate.field).string.min_len = 1];\n",
    )
    done = impact("--against", "main")
    assert done.returncode == 1
    assert "BREAKING_REQUEST handrail.v1.CancelFlowRequest.ticket" in done.stdout
    assert "clients of the API  call handrail.v1.FlowService.CancelFlow" in done.stdout
    done = handrail("contracts", "check", "--output", "json")
    (found,) = json.loads(done.stdout)["findings"]
    assert (done.returncode, found["check"], found["rule"]) == (1, "breaking", "FIELD_ADDED_REQUIRED")


def test_a_package_that_an_image_does_not_hold_is_noted(project: Path) -> None:
    new = project / "proto/shop/v1/shop.proto"
    new.parent.mkdir(parents=True)
    new.write_text(SHOP)
    done = impact("--against", "gen/released.binpb")
    assert "package shop.v1: gen/released.binpb does not contain it, so it can't break" in done.stdout


def test_protos_that_were_not_fetched_are_told_once_each_with_what_fetches_them(project: Path) -> None:
    shutil.rmtree(project / "proto/buf")
    for parts in ((), ("--only", "breaking")):
        done = handrail("contracts", "check", *parts)
        assert done.returncode == Exit.FAILED
        finding, count = done.stdout.splitlines()
        assert 'imported file does not exist: import "buf/validate/validate.proto" (' in finding
        assert "protos import it); if it is a third-party proto, fetch it with: make protos [COMPILE]" in finding
        assert count.endswith(" protos checked: 1 finding")
    shutil.rmtree(project / "proto/google")
    done = handrail("contracts", "check", "--output", "json")
    texts = [each["text"] for each in json.loads(done.stdout)["findings"]]
    assert ["validate.proto" in texts[0], "money.proto" in texts[1], len(texts)] == [True, True, 2]


SHOP = """syntax = "proto3";
package shop.v1;

// Asked begins an order.
message Asked {
  // amount asked for.
  int64 amount = 1;
}
"""


def test_a_small_project_of_ones_own_needs_nothing_but_its_protos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    proto = tmp_path / "proto/shop/v1/shop.proto"
    proto.parent.mkdir(parents=True)
    proto.write_text(SHOP)
    (tmp_path / "buf.yaml").write_text("version: v2\nmodules: [{path: proto}]\nlint: {use: [STANDARD, COMMENTS]}\n")
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    commit(tmp_path, "Begin")
    done = handrail("contracts", "check")
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing is released yet" in done.stdout
    edit(proto, "  int64 amount = 1", "  int64 total = 1")
    done = impact("--against", "main")
    assert done.returncode == 1
    assert "BREAKING_SOURCE shop.v1.Asked.amount" in done.stdout
    assert "nobody: no examined template uses it, and no consumer declares it" in done.stdout
    edit(proto, "// Asked", 'import "buf/validate/validate.proto";\n\n// Asked')
    code, text = complaint("impact", "--against", "main")
    assert code == Exit.USAGE
    assert 'shop.proto:4:1: imported file does not exist: import "buf/validate/validate.proto"; if it is' in text
    assert "or name its module under deps in buf.yaml and fetch it with: buf dep update" in text
