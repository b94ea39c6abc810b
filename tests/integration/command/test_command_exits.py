"""How the `handrail` command ends: exit codes, errors on one line, and whose settings count."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.dev import HANDRAIL, Dev, environment, handrail, handrail_process

NOBODY = "f" * 32


EXITS = {
    "an unknown flow": (["flow", "show", NOBODY], 4, "(FLOW_NOT_FOUND)"),
    "an unknown flow, watched": (["flow", "watch", NOBODY], 4, "(FLOW_NOT_FOUND)"),
    "an unknown flow type": (["flow", "start", "dance", "--data", "{}"], 4, "(FLOW_TYPE_NOT_FOUND)"),
    "an unknown approval": (["approval", "approve", f"refund.{NOBODY}.{NOBODY}"], 4, "(APPROVAL_NOT_FOUND)"),
    "an unknown template": (["template", "show", "refund@99"], 4, "(TEMPLATE_NOT_FOUND)"),
    "an unknown quarantined message": (["quarantine", "show", "99999"], 4, "(QUARANTINE_NOT_FOUND)"),
    "no flow id": (["flow", "show", "a.b c"], 2, '"a.b c" names no flow: take its id'),
    "too few digits": (["flow", "show", "abc"], 2, "4 or more of its first digits"),
    "no flow type": (["flow", "show", "Refund/1"], 2, '"Refund" is no flow type'),
    "no flow of a key": (["flow", "show", "refund/none"], 4, "(FLOW_NOT_FOUND)"),
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
    "a choice that is none": (["flow", "resolve", NOBODY, "dance", "--reason", "x"], 2, 'there is no "dance"'),
    "a status that is none": (["flow", "list", "--status", "stuck"], 2, "invalid choice"),
    "a limit that is none": (["flow", "list", "--limit", "0"], 2, '"0" must be a whole number from 1'),
    "a scan with a filter": (["flow", "list", "--scan", "--filter", "stuck"], 2, "--scan takes neither --filter nor"),
    "a filter that is wrong": (["flow", "list", "--filter", "stauts = X"], 1, "column 1: there is no field"),
    "no visibility to check": (["health", "visibility"], 2, "name its address with --visibility"),
    "no secret to serve with": (["visibility", "--visibility-listen", "127.0.0.1:0"], 2, "--visibility-secret-file"),
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


def test_tokens_are_made_with_the_keys_of_a_folder(dev: Dev, tmp_path: Path) -> None:
    env = {"HANDRAIL_ADDRESS": dev.ready["address"]}
    keys = dev.folder / "keys"
    for nobody in ("", "agent/ledger", "\u0430nna", "\u200b"):
        refused = handrail("token", nobody, "--keys", keys)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert 'the token\'s "sub"' in refused.stderr
    bad = handrail("token", "zoe", "--keys", keys, "--grant", "operator")
    assert (bad.returncode, bad.stdout) == (1, "")
    assert "the entry 'operator': it is not <role>@<flow type>" in bad.stderr
    scoped = handrail("token", "zoe", "--keys", keys, "--grant", "operator@loan", "--grant", "reader@audit")
    listed = handrail("flow", "list", "--output", "json", env={**env, "HANDRAIL_TOKEN": scoped.stdout.strip()})
    assert (listed.returncode, json.loads(listed.stdout)["flows"]) == (0, []), "it reads other flow types alone"
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
