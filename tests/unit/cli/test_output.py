"""What the command prints: columns, JSON, and nothing that a terminal would act on."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from handrail.cli.commands.quarantine import hex_dump
from handrail.cli.enum_words import choice_of, choice_word, choices, is_final, spelled, status, word
from handrail.cli.output import Output, columns, time
from handrail.v1.decision_pb2 import Choice, FlowStatus
from tests.support.dev import HANDRAIL, environment

REFUND = str(Path(__file__).parents[3] / "agents" / "demos" / "payments" / "refund.yaml")


def test_a_table_has_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").table(("NAME", "N"), [("a", 1), ("long name", 22)])
    assert capsys.readouterr().out == "NAME       N\na          1\nlong name  22\n"


def test_an_empty_table_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").table(("NAME",), [], empty="Nothing.")
    assert capsys.readouterr().out == "Nothing.\n"


def test_fields_without_a_value_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").fields([("flow", "f"), ("reason", ""), ("messages", 5)])
    assert capsys.readouterr().out == "flow      f\nmessages  5\n"


def test_json_keeps_every_character(capsys: pytest.CaptureFixture[str]) -> None:
    Output("json").document({"text": "é\x1b[31m"})
    assert json.loads(capsys.readouterr().out) == {"text": "é\x1b[31m"}
    Output("json").line({"a": "\n"})
    assert capsys.readouterr().out == '{"a": "\\n"}\n'


def test_no_form_of_output_has_what_a_terminal_acts_on(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[31m\x07\x9b\x7f\u200b\u202e\u2028\u2066\U000e0041é 東\n"
    for output in (Output("table"), Output("json")):
        output.text(hostile)
        output.document({hostile: [hostile]})
        output.line({"text": hostile})
        output.table(("A", "B"), [(hostile, hostile)])
        output.fields([("name", hostile)])
        output.remark(hostile)
    printed = "".join(capsys.readouterr())
    assert printed.replace("\n", "").isprintable()
    assert "é 東" in printed


def test_text_from_elsewhere_can_not_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").table(("A",), [("\x1b[2J\nforged line",)])
    assert capsys.readouterr().out == "A\n\\x1b[2J\\nforged line\n"


@given(st.lists(st.lists(st.text(alphabet="abc", max_size=5), min_size=2, max_size=2), min_size=1, max_size=5))
def test_every_cell_of_a_column_begins_at_the_same_place(rows: list[list[str]]) -> None:
    width = max(len(row[0]) for row in rows) + 2
    for line, row in zip(columns(rows), rows, strict=True):
        assert line[width:] == row[1].rstrip()


def test_a_long_cell_of_a_table_is_cut_and_a_remark_says_where_the_rest_is(capsys: pytest.CaptureFixture[str]) -> None:
    Output("table").table(("A", "B"), [("a" * 5000, 1), ("short", "b" * 161)])
    told = capsys.readouterr()
    assert max(map(len, told.out.splitlines())) == 160 + 2 + 160
    assert told.out.count("…") == 2
    assert told.err == "handrail: … marks text that was cut; --output json shows all of it\n"
    Output("table").table(("A", "B"), [("a" * 160, 1)])
    assert "…" not in "".join(capsys.readouterr())


def test_times_are_in_utc_to_the_millisecond() -> None:
    assert time(Timestamp(seconds=1_700_000_000, nanos=123_456_789)) == "2023-11-14 22:13:20.123Z"
    assert time(Timestamp()) == ""


def test_enum_values_are_words() -> None:
    assert status(FlowStatus.FLOW_STATUS_WAITING_APPROVAL) == "WAITING_APPROVAL"
    assert word("FLOW_STATUS_UNSPECIFIED", "FLOW_STATUS_") == ""
    assert choice_word(Choice.CHOICE_MARK_UNDONE) == "mark-undone"
    assert [choice_word(choice_of(text)) for text in choices()] == list(choices())
    assert len(choices()) == len(Choice.values()) - 1
    assert spelled("MARK_UNDONE") == choice_word(Choice.CHOICE_MARK_UNDONE)


def test_the_final_statuses_are_those_of_the_design() -> None:
    final = {status(value) for value in FlowStatus.values() if is_final(value)}
    assert final == {"COMPLETED", "COMPENSATED", "CANCELLED", "FAILED"}


def test_bytes_are_shown_in_hex_with_their_characters() -> None:
    assert hex_dump(b"abc\x1b" + bytes(13)) == [
        "000000  61 62 63 1b 00 00 00 00 00 00 00 00 00 00 00 00  abc.............",
        "000010  00                                               .",
    ]
    assert hex_dump(b"") == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
@pytest.mark.parametrize(
    "command, unbuffered",
    [(["template", "graph", REFUND], ""), (["template", "graph", REFUND], "1"), (["token", "--help"], "")],
)
def test_output_that_finds_no_room_is_told_in_one_line(command: list[str], unbuffered: str) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*HANDRAIL, *command],
            env=environment(PYTHONUNBUFFERED=unbuffered),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    line = "handrail: can't write: No space left on device; free some space, or write the output elsewhere\n"
    assert (done.returncode, done.stderr) == (1, line)
