"""What can be typed: precedence, words, strings, wildcards, and errors that name the place."""

from __future__ import annotations

import pytest
from hypothesis import example, given

from handrail.mesh.errors import HandrailError
from handrail.visibility.filter import parse, text_of
from handrail.visibility.filter.syntax import And, Comparator, Comparison, Node, Not, Or, Word
from handrail.visibility.filter.tokens import MAX_LENGTH
from handrail.visibility.filter.value import Value
from tests.support.filter_examples import FILTERS, TYPED

A, B, C = (Word(Value(text=text)) for text in "abc")


def equal(name: str, text: str, *, quoted: bool = False) -> Comparison:
    return Comparison(name, Comparator.EQUAL, Value(text=text, quoted=quoted))


@pytest.mark.parametrize(
    "text, tree",
    [
        ("", And(())),
        ("  \t\n", And(())),
        ("a", A),
        ("a b", And((A, B))),
        ("a AND b c", And((A, B, C))),
        ("a AND b OR c", And((A, Or((B, C))))),
        ("a OR b AND c", And((Or((A, B)), C))),
        ("a OR b c", And((Or((A, B)), C))),
        ("(a AND b) OR c", Or((And((A, B)), C))),
        ("NOT a OR b", Or((Not(A), B))),
        ("-a", Not(A)),
        ("NOT(a b)", Not(And((A, B)))),
        ("-(a OR b)", Not(Or((A, B)))),
        ("((a))", A),
        ("x=1", equal("x", "1")),
        ("x != 1", Comparison("x", Comparator.NOT_EQUAL, Value(text="1"))),
        ("x>=1 y<2", And((Comparison("x", Comparator.AT_LEAST, Value(text="1")), parse("y < 2")))),
        ("x:*", Comparison("x", Comparator.HAS, Value(text="", open_end=True))),
        ("x = -5", equal("x", "-5")),
        ("x = 2026-11-28T10:00:00+01:00", equal("x", "2026-11-28T10:00:00+01:00")),
        ("x = not", equal("x", "not")),
        ("attributes.amount = 1", equal("attributes.amount", "1")),
        ("order-17", Word(Value(text="order-17"))),
        ("o'neil", Word(Value(text="o'neil"))),
        ("x = 'a \"b\"'", equal("x", 'a "b"', quoted=True)),
        (r'x = "a \"b\" \\ \* \u00e4 \U0001f600"', equal("x", 'a "b" \\ * ä 😀', quoted=True)),
        ('x = "AND"', equal("x", "AND", quoted=True)),
        ('"*a*"', Word(Value(text="a", quoted=True, open_start=True, open_end=True))),
        ("*a", Word(Value(text="a", open_start=True))),
        ("**", Word(Value(text="", open_start=True, open_end=True))),
    ],
)
def test_a_filter_is_read_as_people_type_it(text: str, tree: Node) -> None:
    assert parse(text) == tree


@pytest.mark.parametrize(
    "text, column, said",
    [
        ("a AND", 6, "expected a condition, found the end"),
        ("AND a", 1, 'expected a condition, found "AND"; to search for the word, put it in quotes: "AND"'),
        ("a OR OR b", 6, 'expected a condition, found "OR"'),
        ("(a", 3, 'expected ")" for the "(" at column 1, found the end'),
        ("a) b", 2, 'expected AND, OR or the end, found ")"'),
        ("()", 2, 'expected a condition, found ")"'),
        ("x =", 4, 'expected a value after "=", found the end'),
        ("x == 1", 4, 'expected a value after "=", found "="'),
        ("x = (1 OR 2)", 5, 'expected a value after "=", found "("'),
        ('"x" = 1', 1, "a comparison begins with a field, without quotes"),
        ("- a", 1, '"-" stands right before what it negates, without a space'),
        ("NOT NOT a", 5, 'expected a condition, found "NOT"'),
        ("a and b", 3, 'write AND in capitals; to search for it, write "and"'),
        ('x = "a', 5, 'the string that begins with " does not end'),
        ('x = "a*b"', 5, "a * stands at the start or the end of a value"),
        (r'x = "\n"', 5, r'"\n" means nothing; a backslash itself is \\'),
        (r'x = "\UFFFFFFFF"', 5, r'"\UFFFFFFFF" means nothing'),
        (r'x = "\ud800"', 5, r"the character \ud800 can't be stored"),
        ("a \0", 3, r"the character \x00 can't be stored"),
        ("stat\u200bus = FAILED", 1, r'"stat\u200bus" has a character that can' + "'t be seen"),
        ("(" * 21, 21, "there are more than 20 parentheses within each other"),
        ("a " * 51, 101, "there are more than 50 conditions"),
        ("a" * (MAX_LENGTH + 1), 2001, "it is longer than 2,000 characters"),
    ],
)
def test_an_error_names_the_place_and_what_was_expected(text: str, column: int, said: str) -> None:
    with pytest.raises(HandrailError) as refused:
        parse(text)
    assert refused.value.text.startswith(f"the filter is wrong at column {column}: {said}")
    assert (refused.value.reason_name, refused.value.metadata) == ("BAD_FILTER", {"column": str(column)})


def test_a_filter_may_be_as_large_as_the_limits_say() -> None:
    assert parse("(" * 20 + "a" + ")" * 20) == A
    assert parse("a " * 50) == And((A,) * 50)
    assert parse("a" * MAX_LENGTH) == Word(Value(text="a" * MAX_LENGTH))


@pytest.mark.parametrize(
    "text",
    [
        "NOT (NOT a)",
        "NOT (a AND b)",
        "NOT (a OR b)",
        "a AND (b AND c)",
        "a OR (b OR c)",
        "(a AND b) OR c",
        "a OR NOT b",
    ],
)
def test_a_canonical_text_has_the_parentheses_that_it_needs(text: str) -> None:
    assert text_of(parse(text)) == text
    assert text_of(parse(f"({text})".replace("AND ", ""))) == text


@given(node=FILTERS)
def test_the_text_of_a_tree_gives_the_tree_again(node: Node) -> None:
    text = text_of(node)
    assert text.isprintable()
    assert parse(text) == node


@given(text=TYPED)
@example("(" * 2000)
@example('"\u202e"')
def test_whatever_is_typed_has_a_canonical_text_or_is_refused(text: str) -> None:
    node = parsed(text)
    if isinstance(node, HandrailError):
        assert (node.reason_name, node.text.isprintable()) == ("BAD_FILTER", True)
    else:
        assert parse(text_of(node)) == node


def parsed(text: str) -> Node | HandrailError:
    """The tree of a filter, or why it is refused."""
    try:
        return parse(text)
    except HandrailError as error:
        return error
