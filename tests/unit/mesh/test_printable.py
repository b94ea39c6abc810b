"""Nothing that a stranger sent moves a cursor, turns the direction of writing, or passes for a line of its own."""

from __future__ import annotations

import json
import logging

import yaml
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.printable import clean, clean_lines, cut, json_text, shortened
from handrail.mesh.telemetry.logs import Lines
from handrail.mesh.template.yaml_writer import to_text
from handrail.v1.template_pb2 import FlowTemplate

HOSTILE = "\x1b]0;pwn\x07\x9b31m\u202e\u2066\u200b\n2026-01-01 INFO all is well"
# protobuf takes no lone surrogates; JSON does.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(st.text())
def test_a_line_is_printable(text: str) -> None:
    assert clean(text).isprintable()
    assert all(line.isprintable() for line in clean_lines(text).split("\n"))


def test_what_is_printable_stays_as_it_is() -> None:
    assert clean("Zürich, 東京 🎉 a\\b") == "Zürich, 東京 🎉 a\\b"
    assert json_text({"town": "Zürich 🎉"}) == '{"town": "Zürich 🎉"}'


def test_long_text_is_shortened_with_an_ellipsis() -> None:
    assert shortened("ab\ndef", 4) == "ab\n…"
    assert shortened("abcd", 4) == "abcd"
    assert cut("ab\n  def", 4) == "ab …"


@given(st.recursive(st.text() | st.integers() | st.none(), lambda inner: st.dictionaries(st.text(), inner)))
def test_json_is_printable_and_reads_back_unchanged(value: object) -> None:
    assert json.loads(json_text(value)) == value
    assert json_text(value).isprintable()
    assert json.loads(json_text(value, indent=2)) == value
    assert json_text(value, indent=2).replace("\n", "").isprintable()


@given(TEXT)
def test_a_template_as_text_is_printable_and_reads_back_unchanged(text: str) -> None:
    shown = to_text(FlowTemplate(name=text, starts_with=[text]), {"": [text], "name": [text]})
    assert shown.replace("\n", "").isprintable()
    read = yaml.safe_load(shown)
    assert (read.get("name", ""), read["starts_with"]) == (text, [text])


def test_a_record_is_one_line_and_a_traceback_is_set_in() -> None:
    formatter = Lines("%(levelname)s %(message)s")
    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        record = logging.LogRecord(
            "n", logging.WARNING, "f", 1, "flow %s", (HOSTILE,), (ValueError, error, error.__traceback__), sinfo=HOSTILE
        )
    lines = formatter.format(record).split("\n")
    assert all(line.isprintable() for line in lines)
    assert lines[0].startswith("WARNING flow \\x1b]0;pwn\\x07")
    assert all(line.startswith("  ") for line in lines[1:])
    assert any(line.lstrip().startswith("ValueError: ") for line in lines)
