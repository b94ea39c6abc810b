"""Templates written as YAML read back as they were, whatever is said beside them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from demos.payments import TEMPLATES
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.mesh.template.yaml_writer import to_text
from handrail.v1.template_pb2 import FlowTemplate, Gate
from tests.support.random_templates import Spec, specs
from tests.support.sound_templates import parsed

PATHS = ["", "name", "steps", "steps[0]", "steps[0].after", "steps[0].retry", "steps[0].retry.max_attempts", "gates"]


@given(specs(), st.dictionaries(st.sampled_from(PATHS), st.lists(st.text(), min_size=1, max_size=2)))
def test_a_template_reads_back_whatever_the_notes_say(spec: Spec, notes: dict[str, list[str]]) -> None:
    template = parsed(spec)
    assert load_yaml(to_text(template, notes)) == template


@given(st.text(max_size=60))
def test_any_text_reads_back(text: str) -> None:
    template = FlowTemplate(name="refund", gates=[Gate(name=text, when=text, on=text)], completes_with=[text])
    assert load_yaml(to_text(template, {})) == template


@pytest.mark.parametrize("text", ["null", "~", "yes", "12", "1e3", "a: b", "a #b", "'a'", "- a", "&a", "*a", "!a", ""])
def test_what_yaml_would_take_for_something_else_is_quoted(text: str) -> None:
    template = FlowTemplate(name=text, started_by=[text])
    assert load_yaml(to_text(template, {})) == template


def test_it_is_written_as_people_write_it() -> None:
    written = to_text(load_yaml(TEMPLATES[0].read_text("utf-8")), {"steps[0].effect": ["nothing to undo"]}).splitlines()
    assert "starts_with: [payments.v1.ChargebackReceived]" in written
    assert "    effect: NONE # nothing to undo" in written
    assert "    when: event.amount.units >= 1000" in written
    assert "    approvers: {roles: [finance], quorum: 2, not_the_requester: true}" in written
    assert "    retry: {max_attempts: 3, initial_backoff: 1s, multiplier: 2, max_backoff: 30s}" in written
