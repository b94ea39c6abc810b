"""What needs two persons, on the command line: how it is asked for, shown, and confirmed."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dev import Dev, handrail, running_dev

CLAIM = {"chargebackId": "cb-1", "accountId": "acct-0001", "amount": {"currencyCode": "EUR", "units": "5000"}}
PENDING = 6


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    """An installation whose refunds nobody cancels alone."""
    folder = tmp_path_factory.mktemp("dev")
    with running_dev(folder / "data", "--agents", "demos.payments") as running:
        image = folder / "contracts.binpb"
        image.write_bytes(Path("gen/released.binpb").read_bytes())
        guarded = folder / "refund.yaml"
        text = running.text("olga", "template", "show", "refund@1").replace("version: 1\n", "version: 2\n")
        guarded.write_text(f"{text}require_two: [CANCEL]\nconfirm_within: 3600s\n")
        running.text("olga", "template", "put", guarded, "--contracts", image, "--activate")
        yield running


def by_kim(dev: Dev, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What a second operator's command does."""
    token = handrail("token", "kim", "--keys", dev.folder / "keys", "--role", "operator").stdout.strip()
    return handrail(*arguments, env={"HANDRAIL_ADDRESS": dev.ready["address"], "HANDRAIL_TOKEN": token})


def act_in(text: str) -> str:
    """The id that "handrail act confirm" is said with."""
    return text.split("handrail act confirm ")[1].split()[0]


def test_p6_a_flow_is_cancelled_by_two(dev: Dev) -> None:
    flow = dev.text("olga", "flow", "start", "refund", "--data", json.dumps(CLAIM)).strip()
    asked = dev.run("olga", "flow", "cancel", flow, "--reason", "withdrawn")
    assert asked.returncode == PENDING, asked
    assert asked.stdout.startswith("pending: cancel the flow needs another person, by 20")
    act = act_in(asked.stdout)
    assert act in dev.text("vera", "act", "list", "--type", "refund", "--scan")
    dev.until_listed(flow)
    assert act in dev.text("vera", "act", "list", "--type", "refund")
    shown = dev.text("vera", "act", "show", act)
    assert "named    CANCEL" in shown
    assert "olga" in shown
    own = dev.run("olga", "act", "confirm", act)
    assert (own.returncode, own.stderr.endswith("(SAME_PERSON)\n")) == (5, True), own
    glass = dev.run("olga", "act", "confirm", act, "--break-glass", "it burns")
    assert (glass.returncode, glass.stderr.endswith("(MISSING_ROLE)\n")) == (5, True), glass
    done = by_kim(dev, "act", "confirm", act)
    assert done.returncode == 0, done
    assert f"{act} is CONFIRMED by kim: cancel the flow\n" in done.stdout
    settled = re.search(rf"{act} +cancel the flow +CONFIRMED +olga +kim", dev.text("vera", "flow", "show", flow))
    assert settled, "the flow shows who did it"
    assert "Nothing waits for a second person." in dev.text("vera", "act", "list")
    assert dev.json("vera", "act", "show", act)["status"] == "ACT_STATUS_CONFIRMED"
    assert "confirmed" in by_kim(dev, "act", "withdraw", act, "--reason", "too late").stderr


def test_p6_a_version_is_activated_by_two_and_what_it_weakens_is_read_first(dev: Dev) -> None:
    assert "one person does everything to templates" in dev.text("vera", "act", "policy")
    assert "two persons: ACTIVATE" in dev.text("olga", "act", "policy", "--require", "activate", "--reason", "audit")
    asked = dev.run("olga", "template", "rollback", "refund", "--reason", "too slow")
    assert asked.returncode == PENDING, asked
    warning = "warning: One person is enough for CANCEL and MIGRATE; before, it took two.\n"
    assert warning in asked.stdout
    act = act_in(asked.stdout)
    unread = by_kim(dev, "act", "confirm", act)
    assert unread.returncode == 1
    digest = unread.stderr.split("--digest ")[1].strip()
    assert by_kim(dev, "act", "confirm", act, "--digest", digest).returncode == 0
    assert dev.json("vera", "template", "show", "refund")["template"]["version"] == 1
    taken_back = dev.run("olga", "act", "policy", "--require", "nothing", "--reason", "no audit")
    assert taken_back.returncode == PENDING
    assert "two persons: ACTIVATE" in dev.text("vera", "act", "policy")


def test_a_list_of_acts_says_that_there_are_more_and_goes_on(dev: Dev) -> None:
    whole = dev.json("vera", "act", "list", "--all")
    acts = [each["actId"] for each in whole["acts"]]
    assert whole["total"]["items"] == len(acts) > 1, "the tests before asked for them"
    cut = dev.run("vera", "act", "list", "--all", "--limit", "1")
    assert f"1 of {len(acts)}" in cut.stderr
    token = cut.stderr.split("there are more: --page-token ")[1].split()[0]
    rest = dev.json("vera", "act", "list", "--all", "--page-token", token)
    assert [each["actId"] for each in rest["acts"]] == acts[1:]
    assert (rest["total"]["items"], acts[0] in cut.stdout) == (len(acts), True)
