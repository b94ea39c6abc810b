"""The `handrail` command on templates: checked, activated, compared, drawn and inferred."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh.bus.nkey import public_key
from tests.support import loans
from tests.support.dev import ROOT, Dev, handrail, wait_for


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contracts")
    path = folder / "loans.binpb"
    path.write_bytes(loans.descriptors(folder / "proto"))
    return path


def written(folder: Path, **changes: Any) -> Path:
    path = folder / "loan.yaml"
    path.write_text(json.dumps({**loans.TEMPLATE, **changes}))  # JSON is YAML
    return path


def test_templates_are_checked_without_a_server(image: Path, tmp_path: Path) -> None:
    good = handrail("template", "check", written(tmp_path), "--contracts", image)
    assert good.returncode == 0, good.stderr + good.stdout
    assert "1 checked: 0 errors" in good.stdout
    bad_file = written(tmp_path, startsWith=["library.v1.LoanAsked"])
    bad = handrail("template", "check", bad_file, "--contracts", image)
    assert bad.returncode == 1
    assert re.search(rf"{re.escape(str(bad_file))}:\d+:\d+: error HR", bad.stdout)
    assert "library.v1.LoanAsked" in bad.stdout
    findings = json.loads(handrail("template", "check", bad_file, "--contracts", image, "--output", "json").stdout)
    assert {found["file"] for found in findings["findings"]} == {str(bad_file)}
    none = tmp_path / "none.yaml"
    none.write_text("name: [\n")
    broken = handrail("template", "check", none, "--contracts", image)
    assert broken.returncode == 1
    assert broken.stdout.startswith(f"{none}:2:1: error HR030: ")
    no_image = handrail("template", "check", none, "--contracts", none)
    assert no_image.returncode == 1
    assert "Traceback" not in no_image.stderr
    missing = handrail("template", "check", tmp_path / "missing.yaml", "--contracts", image)
    assert missing.returncode == 2


def test_a_flow_type_is_put_activated_and_rolled_back(dev: Dev, image: Path, tmp_path: Path) -> None:
    refused = dev.run("olga", "template", "put", written(tmp_path, deadline="0s"), "--contracts", image)
    assert refused.returncode == 1
    assert refused.stdout.count("error HR") == 1
    assert refused.stderr == f"handrail: {tmp_path / 'loan.yaml'} is refused: 1 error\n"
    not_allowed = dev.run("vera", "template", "put", written(tmp_path), "--contracts", image)
    assert not_allowed.returncode == 5

    first = dev.text("olga", "template", "put", written(tmp_path), "--contracts", image, "--activate")
    assert "loan version 1 stored" in first
    assert "loan version 1 is active" in first
    assert "nats-permissions --reload" in first
    assert "was stored already" in dev.text("olga", "template", "put", written(tmp_path), "--contracts", image)
    other = dev.run("olga", "template", "put", written(tmp_path, deadline="5s"), "--contracts", image)
    assert other.returncode == 1
    assert other.stderr.endswith("versions are immutable; store the new one as version 2 (TEMPLATE_EXISTS)\n")

    assert dev.json("olga", "template", "put", written(tmp_path, version=2), "--contracts", image)["version"] == 2
    dev.text("olga", "template", "activate", "loan@2", "--reason", "try it")
    listed = dev.json("vera", "template", "list", "loan")["templates"]
    assert [(each["version"], each.get("active", False)) for each in listed] == [(1, False), (2, True)]
    rolled_back = dev.text("olga", "template", "rollback", "loan", "--reason", "too slow")
    assert "loan is rolled back from version 2 to 1: new flows start with 1\n" in rolled_back
    assert rolled_back.endswith("No flow runs on version 2.\n")
    assert "refund" in dev.text("vera", "template", "list")

    shown = tmp_path / "shown.yaml"
    shown.write_text(dev.text("vera", "template", "show", "loan@2"))
    assert handrail("template", "check", shown, "--contracts", image).returncode == 0
    assert dev.json("vera", "template", "show", "loan")["template"]["version"] == 1

    newest, before, first_entry = dev.text("vera", "template", "log", "loan").splitlines()[1:]
    assert re.fullmatch(r"3  \S+ \S+  1        rolled back from 2  olga  too slow", newest)
    assert re.fullmatch(r"2  \S+ \S+  2        activated after 1   olga  try it", before)
    assert first_entry.split()[-2:] == ["activated", "olga"]
    newest_two = dev.json("vera", "template", "log", "loan", "--limit", "2")["activations"]
    assert [each["number"] for each in newest_two] == [3, 2]
    nothing_before = dev.run("olga", "template", "rollback", "loan", "--reason", "x")
    assert nothing_before.returncode == 1
    assert "no version older than loan@1 was active" in nothing_before.stderr
    newer = dev.run("olga", "template", "rollback", "loan", "--to", "2", "--reason", "x")
    assert newer.returncode == 2
    assert "handrail template activate loan@2" in newer.stderr


def test_a_replay_without_contracts_names_the_flag_that_gives_them(dev: Dev, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.yaml"
    refund = (ROOT / "agents/demos/payments/refund.yaml").read_text()
    renamed.write_text(refund.replace("payments.v1.CustomerNotified", "payments.v1.CustomerTold"))
    refused = dev.run("olga", "template", "replay", renamed, "--since", "1h")
    assert refused.returncode == 1
    assert refused.stderr.endswith(
        "(TEMPLATE_REFUSED); the messages are those stored with refund: name others with --contracts IMAGE\n"
    )
    with_them = dev.run("olga", "template", "replay", renamed, "--since", "1h", "--contracts", "demos.payments")
    assert with_them.returncode == 1
    assert with_them.stdout.count("payments.v1.CustomerTold") == 1
    assert with_them.stderr == f"handrail: {renamed} is refused: 1 error\n"


def test_a_diff_says_what_changes_for_flows(dev: Dev, image: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps(loans.TEMPLATE | {"name": "lending"}))
    two.write_text(one.read_text().replace(">= 100", ">= 50").replace('"version": 1', '"version": 2'))
    sentence = "Gate precious asks two people of librarian from 50 on instead of 100, so more often"
    files = handrail("template", "diff", one, two, "--contracts", image)
    assert files.returncode == 0, files.stderr
    assert files.stdout.startswith(f"lending@1 -> lending@2\n- {sentence} (")
    assert handrail("template", "diff", one, two, "--contracts", image, "--exit-code").returncode == 1
    assert handrail("template", "diff", one, one, "--contracts", image, "--exit-code").returncode == 0
    unknown = handrail("template", "diff", one, two)
    assert unknown.returncode == 2
    assert "--contracts IMAGE" in unknown.stderr

    for file in (one, two):
        dev.text("olga", "template", "put", file, "--contracts", image)
    assert sentence in dev.text("vera", "template", "diff", "lending@1", "lending@2")
    [change] = dev.json("vera", "template", "diff", "lending@1", two)["changes"]
    assert change["path"] == "gates.precious.when"
    assert change["text"].startswith(sentence)
    assert dev.text("vera", "template", "diff", two, "lending@2").endswith("Nothing changes for flows.\n")
    nothing = dev.run("vera", "template", "diff", "lending@1", "lending@7")
    assert nothing.returncode == 4
    two.write_text(two.read_text().replace("library.v1.BookPutBack", "library.v1.BookBurnt"))
    other_contracts = dev.run("vera", "template", "diff", "lending@1", two)
    assert other_contracts.returncode == 1
    assert "library.v1.BookBurnt" in other_contracts.stderr
    assert len(other_contracts.stderr.splitlines()) == 1


def test_a_template_is_drawn(dev: Dev) -> None:
    drawn = dev.text("vera", "template", "graph", "refund")
    assert drawn == dev.text("vera", "template", "graph", "refund@1")
    assert drawn.startswith("flowchart TD\n")
    file = loans.ROOT / "agents" / "demos" / "payments" / "refund.yaml"
    assert handrail("template", "graph", file).stdout == drawn
    assert handrail("template", "graph", file, "--format", "svg").stdout.startswith("<svg ")
    assert dev.run("vera", "template", "graph", "refund@99").returncode == 4
    assert handrail("template", "graph", "nothing/there.yaml").returncode == 2


def test_permissions_are_generated_from_what_is_stored(dev: Dev, tmp_path: Path) -> None:
    credentials, out = tmp_path / "credentials", tmp_path / "permissions.conf"
    printed = dev.text("vera", "nats-permissions", "--credentials", credentials)
    assert "flow.refund.*.proposal.refunds.*.payments.v1.LargeRefundGranted" in printed
    assert "flow.refund.*.event.refunds.*.payments.v1.LargeRefundGranted" not in printed
    done = dev.text("vera", "nats-permissions", "--credentials", credentials, "--out", out)
    assert out.read_text() == printed
    assert "ledger" in done
    assert out.stat().st_mode & 0o077 == 0
    nkey = credentials / "ledger" / "nkey"
    assert nkey.stat().st_mode & 0o077 == 0
    assert nkey.read_text().strip() not in printed
    assert public_key(nkey.read_text().strip()) in printed


def test_permissions_are_generated_before_there_is_a_broker(tmp_path: Path) -> None:
    template = ROOT / "agents" / "demos" / "payments" / "refund.yaml"
    done = handrail("nats-permissions", "--template", template, "--credentials", tmp_path / "credentials")
    assert done.returncode == 0, done.stderr
    assert "# detection: AGENTS_1 U" in done.stdout
    missing = handrail("nats-permissions", "--template", tmp_path / "none.yaml", "--credentials", tmp_path)
    assert missing.returncode == 2


def test_a_template_is_inferred_from_what_runs_and_passes_the_check(dev: Dev, tmp_path: Path) -> None:
    flow = dev.start_refund(20)
    wait_for(lambda: dev.status(flow) == "COMPLETED", "the end of the flow")
    file = tmp_path / "inferred.yaml"
    file.write_text(dev.text("vera", "template", "infer", "refund", "--since", "1h", "--limit", "50"))
    shown = file.read_text()
    assert shown.startswith("# Inferred from ")
    assert "  - name: enrich\n    agent: enrichment\n    after: [payments.v1.ChargebackReceived] # " in shown
    checked = handrail("template", "check", file, "--contracts", "demos.payments")
    assert checked.returncode == 0, checked.stdout
    document = dev.json("vera", "template", "infer", "refund")
    assert document["template"]["startsWith"] == ["payments.v1.ChargebackReceived"]
    assert document["notes"]["starts_with"]
    assert dev.run("vera", "template", "infer", "dance").returncode == 4
    nothing = dev.run("vera", "template", "infer", "refund", "--since", "0s")
    assert nothing.returncode == 4
    assert nothing.stderr == "handrail: flow type refund has no flow to infer a template from\n"
