"""The `handrail` command against a running installation: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handrail.mesh.bus import BusSettings, NatsBus
from tests.support import flows, loans
from tests.support.dev import HANDRAIL, Dev, environment, handrail, handrail_process, running_dev, wait_for

NOBODY = "f" * 32


def chargeback(units: int, *, id_: str = "") -> str:
    amount = {"currencyCode": "EUR", "units": str(units)}
    return json.dumps(
        {"chargebackId": id_ or f"cb-{uuid.uuid4().hex[:12]}", "accountId": "acct-0001", "amount": amount}
    )


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev") / "data"
    with running_dev(folder, "--agents", "demos.payments") as running:
        yield running


def start(dev: Dev, units: int) -> str:
    return dev.text("olga", "flow", "start", "refund", "--data", chargeback(units)).strip()


def approval_of(dev: Dev, flow: str) -> str:
    """The approval that a flow waits for, as soon as it does."""

    def found() -> list[Any]:
        listed = dev.json("vera", "approval", "list", "--type", "refund")["approvals"]
        return [each["approvalId"] for each in listed if each["flowId"] == flow]

    wait_for(found, "an approval")
    return str(found()[0])


def status(dev: Dev, flow: str) -> str:
    return str(dev.json("vera", "flow", "show", flow)["status"]).removeprefix("FLOW_STATUS_")


def test_a_small_refund_from_start_to_end(dev: Dev) -> None:
    data = chargeback(20)
    flow = dev.text("olga", "flow", "start", "refund", "--data", data, "--key", "small").strip()
    again = dev.run("olga", "flow", "start", "refund", "--data", data, "--key", "small")
    assert (again.stdout, again.stderr) == (f"{flow}\n", f"handrail: flow {flow} was started before\n")
    other = dev.run("olga", "flow", "start", "refund", "--data", chargeback(21), "--key", "small")
    assert other.stdout == f"{flow}\n"
    assert other.stderr == f"handrail: flow {flow} was started before, with other data, which stand\n"
    told = dev.json("olga", "flow", "start", "refund", "--data", data, "--key", "small")
    assert told["flowId"] == flow
    assert told["alreadyStarted"]

    watched = dev.text("vera", "flow", "watch", flow).splitlines()
    assert len(watched) == 5
    assert "payments.v1.ChargebackReceived" in watched[0]
    assert watched[-1].endswith("[COMPLETED]")
    lines = [json.loads(line) for line in dev.text("vera", "flow", "watch", flow, "--output", "json").splitlines()]
    assert [line["event"]["sequence"] for line in lines] == [line["sequence"] for line in lines]
    assert lines[0]["event"]["event"]["data"]["accountId"] == "acct-0001"
    resumed = dev.text("vera", "flow", "watch", flow, "--after", lines[2]["sequence"]).splitlines()
    assert resumed == watched[3:]

    shown = dev.text("vera", "flow", "show", flow)
    assert "status     COMPLETED" in shown
    assert "requester  olga" in shown
    events = dev.json("vera", "flow", "events", flow)["events"]
    assert [each["type"].rpartition(".")[2] for each in events] == [
        *("ChargebackReceived", "ChargebackEnriched", "SmallRefundGranted", "RefundPaid", "CustomerNotified")
    ]
    assert events[0]["event"]["data"]["amount"]["units"] == "20"
    assert "CustomerNotified" in dev.text("vera", "flow", "events", flow)
    earlier = dev.json("vera", "flow", "show", flow, "--as-of-sequence", events[1]["sequence"])
    assert earlier["status"] == "FLOW_STATUS_RUNNING"
    assert dev.json("vera", "flow", "show", flow, "--as-of-time", events[-1]["time"])["status"].endswith("COMPLETED")


def test_data_comes_from_a_file_or_from_stdin(dev: Dev, tmp_path: Path) -> None:
    file = tmp_path / "chargeback.json"
    file.write_text(chargeback(20))
    dev.text("olga", "flow", "start", "refund", "--type", "payments.v1.ChargebackReceived", "--data", f"@{file}")
    done = dev.run("olga", "flow", "start", "refund", "--data", "-", stdin=chargeback(20))
    assert done.returncode == 0, done.stderr


def on_a_terminal(dev: Dev, person: str, *arguments: str, answer: str) -> subprocess.CompletedProcess[bytes]:
    """Run a command whose input is a terminal, at which somebody types this."""
    master, slave = os.openpty()
    try:
        os.write(master, answer.encode())
        return subprocess.run(
            [*HANDRAIL, *arguments], env=environment(**dev.env(person)), stdin=slave, capture_output=True, timeout=60
        )
    finally:
        os.close(slave)
        os.close(master)


def test_a_yes_on_a_terminal_is_given_to_what_is_shown_there(dev: Dev) -> None:
    approval = approval_of(dev, start(dev, 6000))
    digest = dev.json("anna", "approval", "show", approval)["digest"]
    for answer, code, said in (("n\n", 1, b"not voted"), ("y\n", 0, f"{approval} is PENDING (anna yes)".encode())):
        done = on_a_terminal(dev, "anna", "approval", "approve", approval, answer=answer)
        assert done.returncode == code
        assert said in done.stdout + done.stderr
        for shown in ("6000", digest, "Vote yes? [y/N]"):
            assert shown.encode() in done.stderr
            assert shown.encode() not in done.stdout


def test_two_people_approve_a_large_refund(dev: Dev) -> None:
    flow = start(dev, 5000)
    approval = approval_of(dev, flow)
    shown = dev.json("anna", "approval", "show", approval)
    assert shown["data"]["amount"]["units"] == "5000"
    assert list(shown["data"]) == ["@type", "accountId", "amount", "chargebackId", "email"], "the same order each time"
    assert shown["gates"][0]["roles"] == ["finance"]
    text = dev.text("anna", "approval", "show", approval)
    assert shown["digest"] in text
    assert "event.amount.units >= 1000" in text
    assert status(dev, flow) == "WAITING_APPROVAL"
    assert flow in dev.text("vera", "flow", "list", "--status", "waiting_approval")

    unseen = dev.run("anna", "approval", "approve", approval)
    assert (unseen.returncode, unseen.stdout) == (2, "")
    assert f"handrail approval show {approval}" in unseen.stderr
    digest = ("--digest", shown["digest"])
    first = dev.text("anna", "approval", "approve", approval, *digest, "--comment", "fine by me")
    assert first == f"{approval} is PENDING (anna yes)\n"
    wrong = dev.run("ben", "approval", "approve", approval, "--digest", "0" * 64)
    assert wrong.returncode == 1
    assert "(DIGEST_MISMATCH)" in wrong.stderr
    second = dev.json("ben", "approval", "approve", approval, *digest)
    assert second["status"] == "APPROVAL_STATUS_APPROVED"
    assert "COMPLETED" in dev.text("vera", "flow", "watch", flow)
    late = dev.run("anna", "approval", "reject", approval)
    assert late.returncode == 1
    assert "(APPROVAL_CLOSED)" in late.stderr
    assert approval in dev.text("vera", "approval", "list", "--all")
    assert approval not in dev.text("vera", "approval", "list")


def test_one_no_rejects_and_the_customer_is_told(dev: Dev) -> None:
    flow = start(dev, 7000)
    approval = approval_of(dev, flow)
    assert "is REJECTED (ben no)" in dev.text("ben", "approval", "reject", approval, "--comment", "too much")
    assert "COMPLETED" in dev.text("vera", "flow", "watch", flow)
    assert "LargeRefundGranted" in dev.text("vera", "flow", "events", flow)


def test_a_flow_is_planned_and_compensated(dev: Dev) -> None:
    flow = start(dev, 30)
    dev.text("vera", "flow", "watch", flow)
    plan = dev.text("olga", "flow", "plan", flow)
    assert "1.  undo   pay" in plan
    assert "stays  notify" in plan
    assert dev.json("olga", "flow", "plan", flow)["undos"][0]["type"] == "payments.v1.RefundPaid"
    stale = dev.run("olga", "flow", "compensate", flow, "--reason", "fraud", "--etag", "1")
    assert stale.returncode == 1
    assert "(ETAG_MISMATCH)" in stale.stderr
    assert f"{flow} is COMPENSATING" in dev.text("olga", "flow", "compensate", flow, "--reason", "fraud")
    assert "COMPENSATED" in dev.text("vera", "flow", "watch", flow).splitlines()[-1]
    assert dev.text("olga", "flow", "plan", flow).splitlines()[-1].split()[0] == "undone"


def test_a_command_is_asked_again_with_its_id_and_done_once(dev: Dev) -> None:
    request_id = str(uuid.uuid4())
    data = chargeback(9000, id_="cb-again")
    begin = ("olga", "flow", "start", "refund", "--data", data, "--request-id", request_id)
    flow = dev.text(*begin).strip()
    assert dev.text(*begin).strip() == flow
    approval_of(dev, flow)
    cancel = ("olga", "flow", "cancel", flow, "--reason", "enough", "--request-id", request_id)
    refused = dev.run(*cancel)
    assert refused.returncode == 1
    assert "(REQUEST_ID_REUSED)" in refused.stderr
    cancel = (*cancel[:-1], str(uuid.uuid4()))
    assert dev.text(*cancel) == dev.text(*cancel)
    reached = dev.run("olga", "flow", "cancel", flow, "--reason", "enough", "--address", "127.0.0.1:1")
    assert "to repeat this request: --request-id" in reached.stderr


def test_a_flow_goes_back_to_a_step_and_a_person_resolves_it(dev: Dev) -> None:
    flow = start(dev, 9000)
    approval_of(dev, flow)
    dev.text("olga", "flow", "compensate", flow, "--reason", "look again", "--to-step", "enrich")
    wait_for(lambda: status(dev, flow) == "ESCALATED", "an escalation")
    assert "COMPENSATED_TO_STEP" in dev.text("vera", "flow", "show", flow)
    not_offered = dev.run("olga", "flow", "resolve", flow, "mark-undone", "--reason", "x")
    assert not_offered.returncode == 1
    assert "(CHOICE_NOT_OFFERED)" in not_offered.stderr
    resolved = dev.json("olga", "flow", "resolve", flow, "cancel", "--reason", "enough")
    assert resolved["flowId"] == flow
    dev.text("vera", "flow", "watch", flow)
    assert status(dev, flow) == "CANCELLED"


def test_a_flow_is_cancelled_with_or_without_its_effects(dev: Dev) -> None:
    kept = start(dev, 8000)
    approval_of(dev, kept)
    assert f"{kept} is " in dev.text("olga", "flow", "cancel", kept, "--reason", "changed my mind", "--keep-effects")
    dev.text("vera", "flow", "watch", kept)
    assert status(dev, kept) == "CANCELLED"


def test_a_finished_step_is_done_again(dev: Dev) -> None:
    flow = start(dev, 40)
    dev.text("vera", "flow", "watch", flow)
    again = ("flow", "retry", flow, "notify", "--reason", "the letter got lost")
    asked = dev.run("olga", *again)
    assert asked.returncode == 1
    assert "(CONSENT_NEEDED)" in asked.stderr
    dev.text("olga", *again, "--run-again", "notify")
    wait_for(
        lambda: [r["run"] for r in dev.json("vera", "flow", "show", flow)["stepRuns"] if r.get("run")] == [1],
        "a new run",
    )
    unknown = dev.run("olga", "flow", "retry", flow, "dance", "--reason", "x")
    assert unknown.returncode == 4
    assert "(STEP_NOT_FOUND)" in unknown.stderr


def test_lists_have_a_limit_and_filters(dev: Dev) -> None:
    flows = [start(dev, 20) for _ in range(3)]
    for flow in flows:
        dev.text("vera", "flow", "watch", flow)
    assert len(dev.json("vera", "flow", "list", "--limit", "2")["flows"]) == 2
    newest = [each["flowId"] for each in dev.json("vera", "flow", "list", "--limit", "3", "--type", "refund")["flows"]]
    assert newest == flows[::-1]
    assert dev.json("vera", "flow", "list", "--type", "nothing")["flows"] == []
    assert dev.text("vera", "flow", "list", "--type", "nothing") == "No flows.\n"
    completed = dev.json("vera", "flow", "list", "--status", "completed", "--limit", "500")["flows"]
    assert {each["status"] for each in completed} == {"FLOW_STATUS_COMPLETED"}


EXITS = {
    "an unknown flow": (["flow", "show", NOBODY], 4, "(FLOW_NOT_FOUND)"),
    "an unknown flow, watched": (["flow", "watch", NOBODY], 4, "(FLOW_NOT_FOUND)"),
    "an unknown flow type": (["flow", "start", "dance", "--data", "{}"], 4, "(FLOW_TYPE_NOT_FOUND)"),
    "an unknown approval": (["approval", "approve", NOBODY], 4, "(APPROVAL_NOT_FOUND)"),
    "an unknown template": (["template", "show", "refund@99"], 4, "(TEMPLATE_NOT_FOUND)"),
    "an unknown quarantined message": (["quarantine", "show", "99999"], 4, "(QUARANTINE_NOT_FOUND)"),
    "no flow id": (["flow", "show", "a.b c"], 1, "(CONTRACT_VIOLATION)"),
    "data that is no JSON": (
        ["flow", "start", "refund", "--data", "{"],
        1,
        "read as payments.v1.ChargebackReceived in JSON",
    ),
    "data that is no JSON object": (["flow", "start", "refund", "--data", "[]"], 1, "it is not a JSON object"),
    "data with a field that is not there": (["flow", "start", "refund", "--data", '{"x": 1}'], 1, "no field named"),
    "data that breaks its contract": (["flow", "start", "refund", "--data", "{}"], 1, "amount"),
    "a type that is not there": (
        ["flow", "start", "refund", "--type", "a.B", "--data", "{}"],
        1,
        "UNKNOWN_MESSAGE_TYPE",
    ),
    "a type that starts nothing": (
        ["flow", "start", "refund", "--type", "payments.v1.RefundPaid", "--data", "{}"],
        1,
        "(",
    ),
    "a file that is not there": (
        ["flow", "start", "refund", "--data", "@/none"],
        2,
        "/none can't be read: No such file",
    ),
    "neither a time nor a duration": (
        ["flow", "divergences", "--since", "noon"],
        2,
        "neither a duration such as 30m, 24h or 7d",
    ),
    "a time before all calendars": (["flow", "divergences", "--since", "99999999999h"], 2, "before the first date"),
    "a version that is none": (["template", "show", "refund@one"], 2, '"one" must be a whole number from 1'),
    "no version": (["template", "activate", "refund"], 2, "no version of refund is named: use refund@VERSION"),
    "a template that nobody stored": (["template", "log", "dance"], 4, "(TEMPLATE_NOT_FOUND)"),
    "a rollback without a reason": (["template", "rollback", "refund"], 2, "--reason"),
    "a choice that is none": (["flow", "resolve", NOBODY, "dance", "--reason", "x"], 2, "invalid choice"),
    "a limit that is none": (["flow", "list", "--limit", "0"], 2, '"0" must be a whole number from 1'),
    "a time that is none": (["flow", "show", NOBODY, "--as-of-time", "noon"], 2, '"noon" is not a time such as'),
    "no reason": (["flow", "cancel", NOBODY], 2, "--reason"),
    "a time-out that is none": (["flow", "list", "--timeout", "soon"], 2, "not a duration"),
    "no subcommand": (["flow"], 2, "required"),
}


@pytest.mark.parametrize("what", EXITS)
def test_exit_codes_tell_scripts_what_happened(dev: Dev, what: str) -> None:
    arguments, code, text = EXITS[what]
    done = dev.run("olga", *arguments)
    assert done.returncode == code, done.stderr
    assert text in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    if code != 2:
        assert len(done.stderr.splitlines()) == 1
        assert done.stderr.startswith("handrail: ")


FORBIDDEN = {
    "no token": ({"HANDRAIL_TOKEN_FILE": ""}, ["flow", "list"], "no token: name a file with --token-file"),
    "a forged token": ({"HANDRAIL_TOKEN_FILE": "", "HANDRAIL_TOKEN": "a.b.c"}, ["flow", "list"], "(UNAUTHENTICATED)"),
    "the wrong role": ({}, ["flow", "cancel", NOBODY, "--reason", "x"], "(MISSING_ROLE)"),
}


@pytest.mark.parametrize("what", FORBIDDEN)
def test_without_permission_the_command_says_so(dev: Dev, what: str) -> None:
    env, arguments, text = FORBIDDEN[what]
    done = handrail(*arguments, env={**dev.env("vera"), **env})
    assert done.returncode == 5
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_coordinator_that_is_not_there_is_said_in_one_line() -> None:
    done = handrail_process("flow", "list", "--address", "127.0.0.1:1", "--timeout", "2s")
    assert done.returncode == 3
    assert done.stderr.startswith("handrail: no coordinator answers at 127.0.0.1:1: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_flag_comes_before_the_environment(dev: Dev) -> None:
    env = {**dev.env("vera"), "HANDRAIL_ADDRESS": "127.0.0.1:1", "HANDRAIL_OUTPUT": "json"}
    done = handrail("flow", "list", "--address", dev.ready["address"], env=env)
    assert done.returncode == 0, done.stderr
    assert "flows" in json.loads(done.stdout)


def test_a_token_named_by_a_flag_comes_before_one_in_the_environment(dev: Dev) -> None:
    env = {**dev.env("vera"), "HANDRAIL_TOKEN": "forged"}
    assert handrail("flow", "list", env=env).returncode == 5
    file = dev.ready["token_files"]["vera"]
    assert handrail("flow", "list", "--token-file", file, env=env).returncode == 0


def test_a_reader_that_goes_away_is_no_error(dev: Dev) -> None:
    line = f"{' '.join(HANDRAIL)} flow list --limit 500 --output json | head -c 1"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        env=environment(**dev.env("vera")),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    assert done.stderr == ""


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
    assert "error HR" in refused.stdout
    not_allowed = dev.run("vera", "template", "put", written(tmp_path), "--contracts", image)
    assert not_allowed.returncode == 5

    first = dev.text("olga", "template", "put", written(tmp_path), "--contracts", image, "--activate")
    assert "loan version 1 stored" in first
    assert "loan version 1 is active" in first
    assert "reload the nats-servers" in first
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
    password = credentials / "ledger" / "password"
    assert password.stat().st_mode & 0o077 == 0
    assert password.read_text().strip() in printed


def test_permissions_are_generated_before_there_is_a_broker(tmp_path: Path) -> None:
    template = Path(__file__).parents[2] / "agents" / "demos" / "payments" / "refund.yaml"
    done = handrail("nats-permissions", "--template", template, "--credentials", tmp_path / "credentials")
    assert done.returncode == 0, done.stderr
    assert '"detection"' in done.stdout
    missing = handrail("nats-permissions", "--template", tmp_path / "none.yaml", "--credentials", tmp_path)
    assert missing.returncode == 2


def found_in_quarantine(dev: Dev) -> list[Any]:
    listed = dev.json("vera", "quarantine", "list")["messages"]
    return [each for each in listed if each["flowId"] == NOBODY]


async def test_quarantined_messages_are_shown_with_their_bytes(dev: Dev) -> None:
    agent = BusSettings(
        servers=(dev.ready["nats"],),
        name="enrichment",
        user="enrichment",
        password=(Path(dev.ready["credentials"]) / "enrichment" / "password").read_text().strip(),
    )
    async with await NatsBus.connect(agent) as bus:
        await bus.publish(
            f"flow.refund.{NOBODY}.event.enrichment.{NOBODY}.payments.v1.ChargebackEnriched", b"\x1b[31mno event"
        )
    wait_for(lambda: found_in_quarantine(dev), "a quarantined message")
    found = found_in_quarantine(dev)[0]
    assert "MALFORMED" in dev.text("vera", "quarantine", "list", "--type", "refund")
    shown = dev.text("vera", "quarantine", "show", found["quarantineId"])
    assert "1b 5b 33 31" in shown
    assert "[31mno event" in shown
    assert "\x1b" not in shown
    assert dev.json("vera", "quarantine", "show", found["quarantineId"])["message"]["body"]
    assert dev.run("anna", "quarantine", "list").returncode == 5


def test_a_template_is_inferred_from_what_runs_and_passes_the_check(dev: Dev, tmp_path: Path) -> None:
    flow = start(dev, 20)
    wait_for(lambda: status(dev, flow) == "COMPLETED", "the end of the flow")
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


async def test_divergences_are_listed_and_counted(dev: Dev) -> None:
    flow = start(dev, 20)
    wait_for(lambda: status(dev, flow) == "COMPLETED", "the end of the flow")
    agent = BusSettings(
        servers=(dev.ready["nats"],),
        name="notification",
        user="notification",
        password=(Path(dev.ready["credentials"]) / "notification" / "password").read_text().strip(),
    )
    stray = flows.notified(flow)
    async with await NatsBus.connect(agent) as bus:
        await bus.publish(stray.address.subject, stray.body)
    listed = dev.json("vera", "flow", "divergences", "--agent", "notification", "--since", "1h")["divergences"]
    assert [(each["flowId"], each["divergence"]["kind"]) for each in listed] == [
        (flow, "DIVERGENCE_KIND_NOT_TRIGGERED")
    ]
    text = dev.text("vera", "flow", "divergences", "--flow-type", "refund")
    assert flow in text
    assert "NOT_TRIGGERED" in text
    counted = dev.text("vera", "flow", "divergences", "--by", "agent", "--by", "version", "--by", "kind")
    assert re.search(r"^notification +refund@1 +NOT_TRIGGERED +1 ", counted, re.MULTILINE)
    counts = dev.json("vera", "flow", "divergences", "--by", "kind", "--agent", "notification")["counts"]
    assert [(each["kind"], each["count"]) for each in counts] == [("NOT_TRIGGERED", 1)]
    assert dev.text("vera", "flow", "divergences", "--agent", "ledger") == "No divergences.\n"
    assert "NOT_TRIGGERED" in dev.text("vera", "flow", "show", flow)


def test_verify_reads_the_streams_anew_and_finds_what_was_lost(dev: Dev, tmp_path: Path) -> None:
    flow = start(dev, 20)
    dev.text("vera", "flow", "watch", flow)
    password = Path(dev.ready["credentials"]) / "viewer" / "password"
    broker = ("--nats", dev.ready["nats"], "--nats-password-file", password)
    clean = dev.run("vera", "verify", *broker)
    assert clean.returncode == 0, clean.stdout + clean.stderr
    header, row = clean.stdout.splitlines()
    assert header.split()[-4:] == ["LOST", "DOUBLED", "HUNG", "WRONG"]
    assert row.split()[-4:] == ["0", "0", "0", "0"]

    history = tmp_path / "history"
    told = {"op": "start", "outcome": "ok", "at": 1, "ended": 2, "by": "olga", "flow_type": "refund", "flow_id": flow}
    history.write_text(f"{json.dumps(told)}\n{json.dumps(told | {'flow_id': NOBODY})}\n")
    found = dev.run("vera", "verify", *broker, "--history", history, "--output", "json")
    assert found.returncode == 1
    report = json.loads(found.stdout)
    assert (report["lost"], report["acknowledged"]) == (1, 2)
    assert report["findings"][0]["flow_id"] == NOBODY
    history.write_text("no call\n")
    refused = dev.run("vera", "verify", *broker, "--history", history)
    assert refused.returncode == 2
    assert "line 1" in refused.stderr


def test_health_tells_what_does_its_work(dev: Dev) -> None:
    password = Path(dev.ready["credentials"]) / "ledger" / "password"
    ledger = ["health", "agent", "ledger", "--nats", dev.ready["nats"], "--nats-password-file", password]
    wait_for(lambda: handrail(*ledger).returncode == 0, "a worker of the ledger to ask for work")
    assert handrail("health", "coordinator", "--address", dev.ready["address"]).returncode == 0

    stranger = handrail("health", "agent", "refunds", *ledger[3:])
    assert stranger.returncode == 5
    # Detection begins flows and has no step, so there is no work to ask for.
    detection = password.parents[1] / "detection" / "password"
    idle = handrail("health", "agent", "detection", "--nats", dev.ready["nats"], "--nats-password-file", detection)
    assert idle.returncode == 1
    assert "no durable" in idle.stderr
    assert handrail("health", "coordinator", "--address", "127.0.0.1:1").returncode == 3
    assert handrail("health", "broker", "http://127.0.0.1:1").returncode == 3
    assert handrail("health", "broker", "no address").returncode == 3


def test_tokens_are_made_with_the_keys_of_a_folder(dev: Dev, tmp_path: Path) -> None:
    env = {"HANDRAIL_ADDRESS": dev.ready["address"]}
    keys = dev.folder / "keys"
    for nobody in ("", "agent/ledger", "\u0430nna", "\u200b"):
        refused = handrail("token", nobody, "--keys", keys)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert 'the token\'s "sub"' in refused.stderr
    made = handrail("token", "zoe", "--keys", keys, "--role", "viewer")
    assert handrail("quarantine", "list", env={**env, "HANDRAIL_TOKEN": made.stdout.strip()}).returncode == 0
    out = tmp_path / "token"
    assert handrail("token", "zoe", "--keys", keys, "--lifetime", "1ms", "--out", out).returncode == 0
    assert out.stat().st_mode & 0o077 == 0
    foreign = handrail("token", "olga", "--keys", tmp_path / "keys", "--role", "operator")
    refused = handrail("flow", "list", env={**env, "HANDRAIL_TOKEN": foreign.stdout.strip()})
    assert refused.returncode == 5


def test_every_command_explains_itself() -> None:
    for command in ([], ["dev"], ["coordinator"], ["agent", "run"], ["flow", "start"], ["template", "put"], ["token"]):
        done = handrail(*command, "--help")
        assert done.returncode == 0
        assert done.stdout.startswith("usage: ")
    assert handrail_process("--version").stdout.startswith("handrail ")
