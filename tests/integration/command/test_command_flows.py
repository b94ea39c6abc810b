"""The `handrail` command on a running installation: flows, approvals, quarantine, divergences, health."""

from __future__ import annotations

import json
import os
import re
import subprocess
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

from handrail.mesh.bus import BusSettings, NatsBus
from tests.support import flows
from tests.support.dev import HANDRAIL, Dev, chargeback, environment, handrail, wait_for

NOBODY = "f" * 32


def approval_of(dev: Dev, flow: str) -> str:
    """The approval that a flow waits for, as soon as it does."""

    def found() -> list[Any]:
        listed = dev.json("vera", "approval", "list", "--flow-type", "refund")["approvals"]
        return [each["approvalId"] for each in listed if each["flowId"] == flow]

    wait_for(found, "an approval")
    return str(found()[0])


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
    # On a busy machine a handler may begin late, which its agent records as StepProgress.
    assert len([line for line in watched if "StepProgress" not in line]) == 5
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
    assert "key        small" in shown
    dev.until_listed(flow)
    listed = [each.split() for each in dev.text("vera", "flow", "list").splitlines()]
    assert [flow, "refund", "small"] in [each[:3] for each in listed]
    events = dev.json("vera", "flow", "events", flow)["events"]
    names = [each["type"].rpartition(".")[2] for each in events]
    assert [name for name in names if name != "StepProgress"] == [
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
    """Runs a command with a terminal as its input, on which somebody types this answer."""
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
    approval = approval_of(dev, dev.start_refund(6000))
    digest = dev.json("anna", "approval", "show", approval)["digest"]
    for answer, code, said in (("n\n", 1, b"not voted"), ("y\n", 0, f"{approval} is PENDING (anna yes)".encode())):
        done = on_a_terminal(dev, "anna", "approval", "approve", approval, answer=answer)
        assert done.returncode == code
        assert said in done.stdout + done.stderr
        for shown in ("6000", digest, "Vote yes? [y/N]"):
            assert shown.encode() in done.stderr
            assert shown.encode() not in done.stdout


def test_two_people_approve_a_large_refund(dev: Dev) -> None:
    flow = dev.start_refund(5000)
    approval = approval_of(dev, flow)
    shown = dev.json("anna", "approval", "show", approval)
    assert shown["data"]["amount"]["units"] == "5000"
    assert list(shown["data"]) == ["@type", "accountId", "amount", "chargebackId", "email"], "the same order each time"
    assert shown["gates"][0]["roles"] == ["finance"]
    text = dev.text("anna", "approval", "show", approval)
    assert shown["digest"] in text
    assert "event.amount.units >= 1000" in text
    assert dev.status(flow) == "WAITING_APPROVAL"
    dev.until_listed(flow)
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
    dev.until_listed(flow)
    assert approval in dev.text("vera", "approval", "list", "--all")
    assert approval not in dev.text("vera", "approval", "list")


def test_one_no_rejects_and_the_customer_is_told(dev: Dev) -> None:
    flow = dev.start_refund(7000)
    approval = approval_of(dev, flow)
    assert "is REJECTED (ben no)" in dev.text("ben", "approval", "reject", approval, "--comment", "too much")
    assert "COMPLETED" in dev.text("vera", "flow", "watch", flow)
    assert "LargeRefundGranted" in dev.text("vera", "flow", "events", flow)


def test_a_flow_is_planned_and_compensated(dev: Dev) -> None:
    flow = dev.start_refund(30)
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
    flow = dev.start_refund(9000)
    approval_of(dev, flow)
    dev.text("olga", "flow", "compensate", flow, "--reason", "look again", "--to-step", "enrich")
    wait_for(lambda: dev.status(flow) == "ESCALATED", "an escalation")
    assert "COMPENSATED_TO_STEP" in dev.text("vera", "flow", "show", flow)
    not_offered = dev.run("olga", "flow", "resolve", flow, "mark-undone", "--reason", "x")
    assert not_offered.returncode == 1
    assert "(CHOICE_NOT_OFFERED)" in not_offered.stderr
    resolved = dev.json("olga", "flow", "resolve", flow, "cancel", "--reason", "enough")
    assert resolved["flowId"] == flow
    dev.text("vera", "flow", "watch", flow)
    assert dev.status(flow) == "CANCELLED"


def test_a_flow_is_cancelled_with_or_without_its_effects(dev: Dev) -> None:
    kept = dev.start_refund(8000)
    approval_of(dev, kept)
    assert f"{kept} is " in dev.text("olga", "flow", "cancel", kept, "--reason", "changed my mind", "--keep-effects")
    dev.text("vera", "flow", "watch", kept)
    assert dev.status(kept) == "CANCELLED"


def test_a_finished_step_is_done_again(dev: Dev) -> None:
    flow = dev.start_refund(40)
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
    flows = [dev.start_refund(20) for _ in range(3)]
    for flow in flows:
        dev.text("vera", "flow", "watch", flow)
        dev.until_listed(flow)
    assert len(dev.json("vera", "flow", "list", "--limit", "2")["flows"]) == 2
    newest = [each["flowId"] for each in dev.json("vera", "flow", "list", "--limit", "3", "--type", "refund")["flows"]]
    assert newest == flows[::-1]
    assert dev.json("vera", "flow", "list", "--type", "nothing")["flows"] == []
    assert dev.text("vera", "flow", "list", "--type", "nothing") == "No flows.\n"
    completed = dev.json("vera", "flow", "list", "--status", "completed", "--limit", "500")["flows"]
    assert {each["status"] for each in completed} == {"FLOW_STATUS_COMPLETED"}


def found_in_quarantine(dev: Dev) -> list[Any]:
    listed = dev.json("vera", "quarantine", "list")["messages"]
    return [each for each in listed if each["flowId"] == NOBODY]


async def test_quarantined_messages_are_shown_with_their_bytes(dev: Dev) -> None:
    agent = BusSettings(
        servers=(dev.ready["nats"],),
        name="enrichment",
        nkey_seed_file=Path(dev.ready["credentials"]) / "enrichment" / "nkey",
    )
    async with await NatsBus.connect(agent) as bus:
        await bus.publish(
            f"flow.refund.{NOBODY}.event.enrichment.{NOBODY}.payments.v1.ChargebackEnriched", b"\x1b[31mno event"
        )
    wait_for(lambda: found_in_quarantine(dev), "a quarantined message")
    found = found_in_quarantine(dev)[0]
    assert "MALFORMED" in dev.text("vera", "quarantine", "list", "--type", "refund")
    named = f"{found['agent']}/{found['quarantineId']}"
    assert named in dev.text("vera", "quarantine", "list", "--agent", found["agent"])
    assert named not in dev.text("vera", "quarantine", "list", "--agent", "ledger")
    shown = dev.text("vera", "quarantine", "show", named)
    assert "1b 5b 33 31" in shown
    assert "[31mno event" in shown
    assert "\x1b" not in shown
    assert dev.json("vera", "quarantine", "show", named)["message"]["body"]
    assert dev.run("anna", "quarantine", "list").returncode == 5


async def test_divergences_are_listed_and_counted(dev: Dev) -> None:
    flow = dev.start_refund(20)
    wait_for(lambda: dev.status(flow) == "COMPLETED", "the end of the flow")
    agent = BusSettings(
        servers=(dev.ready["nats"],),
        name="notification",
        nkey_seed_file=Path(dev.ready["credentials"]) / "notification" / "nkey",
    )
    stray = flows.notified(flow)
    async with await NatsBus.connect(agent) as bus:
        await bus.publish(stray.address.subject, stray.body)
    dev.until_listed(flow)
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
    flow = dev.start_refund(20)
    dev.text("vera", "flow", "watch", flow)
    nkey = Path(dev.ready["credentials"]) / "viewer" / "nkey"
    broker = ("--nats", dev.ready["nats"], "--nats-nkey-file", nkey)
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
    nkey = Path(dev.ready["credentials"]) / "ledger" / "nkey"
    ledger = ["health", "agent", "ledger", "--nats", dev.ready["nats"], "--nats-nkey-file", nkey]
    wait_for(lambda: handrail(*ledger).returncode == 0, "a worker of the ledger to ask for work")
    assert handrail("health", "coordinator", "--address", dev.ready["address"]).returncode == 0

    stranger = handrail("health", "agent", "refunds", *ledger[3:])
    assert stranger.returncode == 5
    # Detection begins flows and has no step, so there is no work to ask for.
    detection = nkey.parents[1] / "detection" / "nkey"
    idle = handrail("health", "agent", "detection", "--nats", dev.ready["nats"], "--nats-nkey-file", detection)
    assert idle.returncode == 1
    assert "no durable" in idle.stderr
    assert handrail("health", "coordinator", "--address", "127.0.0.1:1").returncode == 3
    assert handrail("health", "broker", "http://127.0.0.1:1").returncode == 3
    assert handrail("health", "broker", "no address").returncode == 3


def test_evidence_of_a_flow_is_checked_and_a_changed_byte_is_noticed(dev: Dev, tmp_path: Path) -> None:
    flow = dev.text("olga", "flow", "start", "refund", "--data", chargeback(20), "--key", "evidence").strip()
    wait_for(lambda: dev.status(flow) == "COMPLETED", "the end of the flow")
    file = tmp_path / "evidence.json"
    exported = dev.run("vera", "flow", "evidence", flow, "-o", str(file), "--output", "json")
    assert exported.returncode == 0, exported.stderr
    facts = json.loads(exported.stdout)
    assert (facts["flow"], facts["status"], facts["exported by"]) == (flow, "COMPLETED", "vera")
    assert facts["sha256"] == sha256(file.read_bytes()).hexdigest()
    assert file.stat().st_mode & 0o077 == 0
    again = dev.run("vera", "flow", "evidence", flow, "-o", str(file))
    assert (again.returncode, "exists: evidence is not written over a file" in again.stderr) == (1, True)
    assert handrail("flow", "verify", file, env=environment()).returncode == 0, "it asks nobody"
    file.write_bytes(file.read_bytes().replace(b"detection", b"detectioN", 1))
    changed = handrail("flow", "verify", file, env=environment())
    assert (changed.returncode, "is not what was exported" in changed.stderr) == (1, True)
    missing = dev.run("vera", "flow", "evidence", "0" * 32, "-o", str(tmp_path / "none.json"))
    assert missing.returncode == 4
    assert not (tmp_path / "none.json").exists()
