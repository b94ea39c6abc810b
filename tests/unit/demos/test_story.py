"""What the payments demo prints."""

import pytest

from demos.payments.book import COMPANY, Posting
from demos.payments.money import Amount
from demos.payments.report import book_table
from demos.stage.story import Story, table


def test_a_table_has_aligned_columns() -> None:
    assert table([["", "flows"], ["refunded", "12"], ["no", "1"]]) == [
        "            flows",
        "  ---------------",
        "  refunded     12",
        "  no            1",
    ]


def test_the_books_table_adds_up_each_currency() -> None:
    postings = [
        Posting("tr-1", "customer:a", Amount.from_parts("EUR", 5, 0)),
        Posting("tr-1", COMPANY, Amount.from_parts("EUR", -5, 0)),
        Posting("tr-2", "customer:b", Amount.from_parts("EUR", 1_000, 0)),
        Posting("tr-3", "customer:b", Amount.from_parts("CHF", 1, 0)),
    ]
    rows = [line.split() for line in book_table(postings)[2:]]
    assert rows == [["CHF", "0.00", "1.00", "1.00"], ["EUR", "-5.00", "1,005.00", "1,000.00"]]


def test_control_characters_of_the_input_are_shown_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    Story().tell('cb-\x1b[2J\n"ü"')
    assert capsys.readouterr().out.endswith('s  cb-\\x1b[2J\\n"ü"\n')
