"""The page about filters has every field, and its examples are filters."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from handrail.visibility.filter import check, parse
from handrail.visibility.filter.condition import Condition
from handrail.visibility.filter.fields import FIELDS, STATUSES
from tests.contract.source import ROOT
from tests.support.filter_examples import SCOPE

PAGE = (ROOT / "docs" / "filters.md").read_text("utf-8")
EXAMPLES = re.findall(r"^    (\S.*?)  +\S.*$", PAGE.split("## ")[0], re.MULTILINE)
DECLARED = replace(SCOPE, attributes=frozenset({"amount.units", "chargeback_id"}))


def test_there_are_examples() -> None:
    assert len(EXAMPLES) > 5


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_filter(text: str) -> None:
    assert isinstance(check(parse(text), DECLARED), Condition)


def test_the_page_has_every_field_and_every_status() -> None:
    table = PAGE.partition("## Fields")[2].partition("## ")[0]
    assert [name for name in (*FIELDS, *STATUSES) if f"`{name}`" not in table] == []
