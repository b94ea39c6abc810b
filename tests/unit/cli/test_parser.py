"""Wrong arguments are told in one line, with the word that was probably meant."""

from __future__ import annotations

import json

import pytest

from tests.support.dev import handrail

MEANT = {
    "a command": (["flwo", "list"], "flow"),
    "a subcommand": (["flow", "lsit"], "list"),
    "an option": (["flow", "list", "--flowtype", "refund"], "--flow-type"),
    "an option with its value": (["flow", "list", "--limt=3"], "--limit"),
    "a value": (["flow", "list", "--status", "runing"], "RUNNING"),
    "a choice": (["flow", "resolve", "f" * 32, "mark_undon", "--reason", "x"], "mark-undone"),
    "a shell": (["completion", "bsh"], "bash"),
}


@pytest.mark.parametrize("what", MEANT)
def test_a_word_that_is_nearly_known_is_answered_with_the_known_one(what: str) -> None:
    words, meant = MEANT[what]
    done = handrail(*words)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert f"did you mean {meant}?" in done.stderr


def test_a_word_that_resembles_nothing_is_answered_with_what_there_is() -> None:
    done = handrail("flow", "xyzzy")
    assert done.returncode == 2
    assert "'start', 'list', 'show'" in done.stderr
    assert "did you mean" not in done.stderr
    assert "(see handrail flow --help)" in done.stderr


def test_no_abbreviation_of_an_option_is_taken() -> None:
    assert "unrecognized arguments: --lim 3" in handrail("flow", "list", "--lim", "3").stderr


@pytest.mark.parametrize("words", [["--output", "json"], ["--output=json"], ["--output", "table", "--output", "json"]])
def test_programs_get_errors_as_json(words: list[str]) -> None:
    done = handrail("flow", "list", "--limit", "none", *words)
    error = json.loads(done.stderr)["error"]
    assert (done.returncode, error["code"]) == (2, 2)
    assert '"none" must be a whole number from 1' in error["message"]


def test_the_environment_says_that_a_program_reads_errors() -> None:
    unreachable = ("flow", "list", "--address", "127.0.0.1:1", "--timeout", "1s")
    done = handrail(*unreachable, env={"HANDRAIL_OUTPUT": "json"})
    assert json.loads(done.stderr)["error"] == {
        "code": 3,
        "reason": "UNAVAILABLE",
        "message": "no coordinator answers at 127.0.0.1:1: Connection refused",
    }
    asked_for_text = handrail(*unreachable, "--output", "table", env={"HANDRAIL_OUTPUT": "json"})
    assert asked_for_text.stderr == "handrail: no coordinator answers at 127.0.0.1:1: Connection refused\n"
