"""P6: a condition is true, or false, or it is an error; it is never true by accident."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.conditions.expression import MAX_LENGTH, Expression
from handrail.mesh.conditions.policy import MOST_FACTS, Count, Policy
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError, PolicyError
from tests.support.shop import shop

ASKED, GRANTED = "shop.v1.Asked", "shop.v1.Granted"
CONTRACTS = shop(
    Asked={"amount": "int64", "who": "string", "lines": "repeated string", "size": "uint32", "share": "double"},
    Granted={"amount": "int64", "by": "string"},
)
FACTS = (ASKED, GRANTED)


def asked(**fields: Any) -> Message:
    return CONTRACTS.message_class(ASKED)(**fields)


def granted(**fields: Any) -> Message:
    return CONTRACTS.message_class(GRANTED)(**fields)


def rule(text: str, *, on: tuple[str, ...] = (ASKED,), contracts: Contracts = CONTRACTS) -> Policy:
    return Policy.parse(text, event_types=on, contracts=contracts, fact_types=FACTS, first_types=[ASKED])


@dataclass(frozen=True)
class View:
    """A flow as a condition sees it, made up."""

    first: Message
    elapsed: timedelta
    by_type: Mapping[str, Sequence[Message]]
    undecided: Mapping[str, Sequence[Message]]

    def count(self, message_type: str) -> int:
        return len(self.by_type.get(message_type, ()))

    def latest(self, message_type: str) -> Message | None:
        return next(iter(reversed(self.by_type.get(message_type, ()))), None)

    def facts(self, message_type: str) -> Sequence[Message]:
        return self.by_type.get(message_type, [])

    def proposals(self, message_type: str) -> Sequence[Message]:
        return self.undecided.get(message_type, [])


def facts(
    *there: Message,
    proposed: Sequence[Message] = (),
    first: Message | None = None,
    elapsed: timedelta = timedelta(),
) -> View:
    return View(first or asked(), elapsed, _by_type(there), _by_type(proposed))


def _by_type(messages: Sequence[Message]) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for message in messages:
        found.setdefault(message.DESCRIPTOR.full_name, []).append(message)
    return found


def refused(text: str, *, on: tuple[str, ...] = (ASKED,)) -> str:
    with pytest.raises(PolicyError) as caught:
        rule(text, on=on)
    return caught.value.text


# --- Fail closed ---


@pytest.mark.parametrize(
    "text",
    [
        "1 / int(event.amount) > 1",  # the engine's error is a value with a text, and such a text is true in Python
        "event.lines[0] == 'x'",
        "int(event.who) > 0",
        "event.who.matches('(')",
        "9223372036854775807 + event.amount + 1 > event.amount",
        "dyn(event.who) == 'a' ? true : event.lines[7] == ''",
        "flow.latest['shop.v1.Granted'].amount > 0",
    ],
)
def test_what_can_not_be_evaluated_is_an_error_and_never_true(text: str) -> None:
    event = asked(amount=0) if "/" in text else asked(amount=1)
    with pytest.raises(PolicyError, match="can't be evaluated"):
        rule(text).allows(event=event, flow=facts())


@pytest.mark.parametrize("answer", ["true", 1, 1.0, None, [True], b"x", object()])
def test_only_the_very_values_true_and_false_count(answer: object, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = rule("event.amount > 0")
    monkeypatch.setattr(Expression, "evaluate", lambda self, values: answer)
    with pytest.raises(PolicyError, match="neither true nor false"):
        policy.allows(event=asked(), flow=facts())


def test_a_value_of_another_type_than_the_expression_has_is_an_error() -> None:
    expression = Expression.compile(
        "event.amount / event.amount > 0", contracts=CONTRACTS, event_type=ASKED, tables=(), types=()
    )
    assert expression.type == "BOOL"
    assert expression.evaluate({"event": asked(amount=1)}) is True
    with pytest.raises(PolicyError, match="divide by zero"):
        expression.evaluate({"event": asked(amount=0)})
    with pytest.raises(PolicyError, match="can't be evaluated"):
        expression.evaluate({})


@pytest.mark.parametrize("text", ["event.who", "event.amount", "dyn(true)", "'true'", "null", "[true]", "event"])
def test_a_condition_has_to_be_a_bool(text: str) -> None:
    assert "a condition must be of type BOOL" in refused(text)


def test_an_event_it_was_not_parsed_for_is_an_error() -> None:
    policy = rule("event.amount > 0")
    for event in (granted(amount=5), None):
        with pytest.raises(PolicyError, match="does not apply to"):
            policy.allows(event=event, flow=facts())


@given(text=st.text(max_size=60) | st.text(alphabet="event.amountflowlatest[]'\"()!&|<>=0123 \\\n/rb", max_size=60))
def test_no_text_does_worse_than_be_refused(text: str) -> None:
    try:
        policy = rule(text)
    except PolicyError as error:
        assert error.reason_name == "TEMPLATE_REFUSED"  # noqa: PT017
        return
    try:
        answer = policy.allows(event=asked(), flow=facts())
    except PolicyError:
        return
    assert answer is True or answer is False


# --- Typed against the contract ---


def test_conditions_read_the_fields_of_the_event() -> None:
    policy = rule("event.amount >= 1000 && event.who != 'bank'")
    assert policy.allows(event=asked(amount=1000, who="ann"), flow=facts()) is True
    assert policy.allows(event=asked(amount=999, who="ann"), flow=facts()) is False
    assert policy.allows(event=asked(amount=1000, who="bank"), flow=facts()) is False


@given(amount=st.integers(-(2**63), 2**63 - 1))
def test_whole_numbers_are_compared_exactly(amount: int) -> None:
    assert AT_LEAST_1000.allows(event=asked(amount=amount), flow=facts()) is (amount >= 1000)


AT_LEAST_1000 = Policy.parse("event.amount >= 1000", event_types=[ASKED], contracts=CONTRACTS)


@pytest.mark.parametrize(
    "text, why",
    [
        ("event.amuont > 1", "line 1, column 6: undefined field 'amuont'"),
        ("event.amount > 'x'", "no matching overload"),
        ("event.amount > 1.5", "no matching overload"),
        ("amount > 1", "undeclared reference to 'amount'"),
        ("event.amount >", "Syntax error"),
        ("", "Syntax error"),
        ("true\n  && event.nothing", "line 2, column 11: undefined field 'nothing'"),
    ],
)
def test_mistakes_are_found_when_it_is_parsed_with_their_place(text: str, why: str) -> None:
    assert why in refused(text)


def test_a_condition_on_several_events_has_to_type_check_for_each() -> None:
    both = rule("event.amount > 1", on=(ASKED, GRANTED))
    assert both.allows(event=granted(amount=2), flow=facts())
    assert not both.allows(event=asked(amount=1), flow=facts())
    assert "undefined field 'who' not found in struct 'shop.v1.Granted'" in refused(
        "event.who == ''", on=(ASKED, GRANTED)
    )


def test_an_unknown_event_type_is_refused() -> None:
    with pytest.raises(HandrailError, match=r"shop\.v1\.Nothing"):
        rule("true", on=("shop.v1.Nothing",))


def test_messages_of_generated_classes_and_of_other_versions_can_be_asked_about() -> None:
    other = shop(Asked={"amount": "int64"})
    assert AT_LEAST_1000.allows(event=other.message_class(ASKED)(amount=1000), flow=facts()) is True


# --- Facts of the flow ---


def test_rules_read_the_facts_of_the_flow() -> None:
    policy = rule("flow.counts['shop.v1.Granted'] > 1 && flow.latest[\"shop.v1.Granted\"].by == 'ann'")
    assert policy.allows(event=asked(), flow=facts(granted(by="bob"), granted(by="ann"))) is True
    assert policy.allows(event=asked(), flow=facts(granted(by="ann"), granted(by="bob"))) is False


def test_a_count_of_what_never_came_is_zero() -> None:
    assert rule("flow.counts['shop.v1.Granted'] == 0").allows(event=asked(), flow=facts()) is True


def test_a_condition_can_ask_whether_a_fact_is_there_before_it_looks() -> None:
    policy = rule("flow.counts['shop.v1.Granted'] > 0 && flow.latest['shop.v1.Granted'].amount > 5")
    assert policy.allows(event=asked(), flow=facts()) is False


def test_a_fact_that_is_not_there_is_named() -> None:
    with pytest.raises(PolicyError, match=r"the flow has no shop\.v1\.Granted yet"):
        rule("flow.latest['shop.v1.Granted'].amount > 0").allows(event=asked(), flow=facts())


def test_rules_read_the_time_elapsed() -> None:
    policy = rule("flow.elapsed > duration('90s')")
    assert policy.allows(event=asked(), flow=facts(elapsed=timedelta(seconds=91))) is True
    assert policy.allows(event=asked(), flow=facts(elapsed=timedelta(seconds=90))) is False


@pytest.mark.parametrize(
    "text, why",
    [
        (
            "flow.latest['shop.v1.Granted'].who == ''",
            "column 31: undefined field 'who' not found in struct 'shop.v1.Granted'",
        ),
        ("flow.latest['shop.v1.Grantd'].by == ''", 'no fact "shop.v1.Grantd"; did you mean shop.v1.Granted?'),
        ("true &&\n flow.counts['x'] > 0", 'line 2, column 2: the flow has no fact "x"'),
        ("flow.latest[event.who].by == ''", "look up a fact with a literal type"),
        ("'shop.v1.Granted' in flow.counts", "look up a fact with a literal type"),
        ("latest['shop.v1.Granted'].by == ''", "undeclared reference to 'latest'"),
    ],
)
def test_look_ups_are_typed_by_the_contract_of_the_fact(text: str, why: str) -> None:
    assert why in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "event.who == \"flow.counts['shop.v1.Granted']\"",
        "event.who == r'flow.counts[\"shop.v1.Granted\"]'",
        "event.who == '''it's flow.latest['nothing']'''",
        "event.who == 'it\\'s' || event.who == \"flow.counts['nothing']\"",
        "event.who == 'x' // flow.latest['nothing']",
    ],
)
def test_texts_and_comments_are_left_as_they_are(text: str) -> None:
    quoted = text.split("== ", 1)[1]
    assert rule(text).allows(event=asked(who="y"), flow=facts()) is False
    if quoted.startswith('"flow'):
        assert rule(text).allows(event=asked(who=quoted.strip('"')), flow=facts()) is True


def test_a_rule_tells_what_it_counts() -> None:
    assert list(rule("flow.counts['shop.v1.Granted'] > 3").reads(ASKED)) == [("flow.counts", GRANTED)]
    assert list(rule("flow.latest['shop.v1.Granted'].amount > 3").reads(ASKED)) == [("flow.latest", GRANTED)]
    assert list(rule("event.amount > 3").reads(ASKED)) == []


# --- The first event ---


def test_conditions_read_the_first_event_of_the_flow() -> None:
    policy = rule("event.amount > flow.first.amount", on=(ASKED, GRANTED))
    assert policy.allows(event=granted(amount=6), flow=facts(first=asked(amount=5))) is True
    assert policy.allows(event=granted(amount=5), flow=facts(first=asked(amount=5))) is False
    assert "undefined field 'by'" in refused("flow.first.by == ''")


def test_a_flow_that_may_begin_in_several_ways_is_typed_for_each() -> None:
    both = Policy.parse("flow.first.amount > 1", event_types=[GRANTED], contracts=CONTRACTS, first_types=FACTS)
    assert both.allows(event=granted(), flow=facts(first=granted(amount=2))) is True
    assert both.allows(event=granted(), flow=facts(first=asked(amount=1))) is False
    with pytest.raises(PolicyError, match=r"undefined field 'who' not found in struct 'shop\.v1\.Granted'"):
        Policy.parse("flow.first.who == ''", event_types=[ASKED], contracts=CONTRACTS, first_types=FACTS)


def test_a_first_event_of_another_type_is_an_error() -> None:
    with pytest.raises(PolicyError, match="does not apply to"):
        rule("flow.first.amount > 1").allows(event=asked(), flow=facts(first=granted(amount=2)))


# --- Many of them ---


@pytest.mark.parametrize(
    "text, what",
    [
        ("flow.facts['shop.v1.Granted'].map(f, f.amount).sum()", 7),
        ("flow.facts['shop.v1.Granted'].filter(f, f.by == 'ann').size()", 1),
        ("flow.facts['shop.v1.Granted'].filter(f, f.by == 'ann').map(f, f.amount).sum()", 3),
        ("flow.facts['shop.v1.Asked'].map(f, f.amount).sum()", 0),
        ("flow.proposals['shop.v1.Granted'].map(f, f.amount).sum()", 10),
        ("[duration('1s'), duration('2s')].sum() == duration('3s') ? 1 : 0", 1),
        ("[1u, 2u].sum() == 3u ? 1 : 0", 1),
        ("[].sum()", 0),
    ],
)
def test_conditions_count_and_add_up_what_came(text: str, what: int) -> None:
    there = facts(granted(amount=3, by="ann"), granted(amount=4, by="bob"), proposed=[granted(amount=10)])
    assert rule(f"({text}) == {what}").allows(event=asked(), flow=there) is True


def test_a_sum_is_typed() -> None:
    assert "no matching overload for 'sum'" in refused("['a'].sum() == 'a'")
    assert "no matching overload" in refused("[1.0].sum() > 1")


@given(amounts=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20))
def test_a_sum_is_exact_or_an_error(amounts: list[int]) -> None:
    there = facts(*(granted(amount=each) for each in amounts))
    partial = [sum(amounts[:number]) for number in range(len(amounts) + 1)]
    try:
        above = rule("flow.facts['shop.v1.Granted'].map(f, f.amount).sum() > 0").allows(event=asked(), flow=there)
    except PolicyError as error:
        assert "overflow" in error.text  # noqa: PT017
        assert any(not -(2**63) <= each < 2**63 for each in partial)
    else:
        assert above is (partial[-1] > 0)


def test_more_facts_than_a_condition_looks_at_are_an_error() -> None:
    policy = rule("flow.facts['shop.v1.Granted'].map(f, f.amount).sum() >= 0")
    assert policy.allows(event=asked(), flow=facts(*[granted()] * MOST_FACTS)) is True
    for many in (facts(*[granted()] * (MOST_FACTS + 1)), facts(proposed=[granted()] * (MOST_FACTS + 1))):
        with pytest.raises(PolicyError, match=f"reads {MOST_FACTS} at most"):
            rule(policy.text.replace("facts", "proposals") if many.undecided else policy.text).allows(
                event=asked(), flow=many
            )


# --- Numbers ---

NUMBERS = shop(
    Asked={"d": "double", "ds": "repeated double", "n": "int64", "s": "string", "part": "shop.v1.Part"},
    Part={"d": "double", "parts": "repeated shop.v1.Part"},
)
READS = [
    ("event.d", {"d": math.nan}),
    ("event.ds[1]", {"ds": [1.0, math.nan]}),
    ("event.part.d", {"part": {"d": math.nan}}),
    ("event.part.parts[0].d", {"part": {"parts": [{"d": math.nan}]}}),
    ("dyn(event.d)", {"d": math.nan}),
    ("event.ds.map(x, x * 2.0)[0]", {"ds": [math.nan]}),
    ("event.ds.sum()", {"ds": [1.0, math.nan]}),
    ("event.ds.sum()", {"ds": [1e308, 1e308]}),
    ("{'a': event.d}['a']", {"d": math.nan}),
    ("double(event.s)", {"s": "NaN"}),
    ("double(event.s)", {"s": "1e999"}),
    ("event.d * 1e300", {"d": 1e300}),
    ("event.d + event.d", {"d": 1.7e308}),
    ("-event.d - event.d", {"d": 1.7e308}),
    ("event.d / 0.0", {"d": 1.0}),
    ("1e999", {}),
]


def numbers(text: str, **fields: Any) -> bool:
    return parsed(text).allows(event=NUMBERS.message_class(ASKED)(**fields), flow=facts())


@cache
def parsed(text: str) -> Policy:
    return Policy.parse(text, event_types=[ASKED], contracts=NUMBERS)


@pytest.mark.parametrize("operator", [">", "<", ">=", "<=", "==", "!="])
@pytest.mark.parametrize("text, fields", READS)
def test_what_is_no_finite_number_is_neither_true_nor_false(text: str, operator: str, fields: Any) -> None:
    for condition in (f"{text} {operator} 1.0", f"!(1.0 {operator} {text})", f"event.n == 1 || {text} {operator} 1.0"):
        with pytest.raises(PolicyError, match=r"can't be evaluated: .* (is -?(nan|inf)|not finite)"):
            numbers(condition, **fields)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize(
    "text",
    ["event.part == event.part", "event == event", "event.ds == [1.0]", "1.0 in event.ds", "[event.part] != []"],
)
def test_no_more_are_they_within_what_is_compared_as_a_whole(text: str, value: float) -> None:
    with pytest.raises(PolicyError, match="holds a number that is not finite"):
        numbers(text, ds=[1.0, value], part={"parts": [{"d": value}]})


def test_what_is_not_read_is_in_nobodys_way() -> None:
    assert numbers("event.n == 0 || event.d > 1.0", d=math.nan) is True
    assert numbers("event.n == 1 && event.d > 1.0", d=math.nan) is False
    assert numbers("has(event.part) && event.n == 0", d=math.nan, part={"d": math.nan}) is True
    assert numbers("size(event.ds) == 1", ds=[math.nan]) is True


@given(d=st.floats(allow_nan=False, allow_infinity=False), n=st.integers(-(2**63), 2**63 - 1), s=st.text(max_size=9))
def test_finite_numbers_and_all_else_are_compared_as_ever(d: float, n: int, s: str) -> None:
    assert numbers("event.d >= 1.5", d=d) is (d >= 1.5)
    assert numbers("event.ds.exists(x, x < 0.0) || dyn(event.n) == 3", ds=[d], n=n) is (d < 0 or n == 3)
    assert numbers("event.part.d == event.d && dyn(event.s) == ''", d=d, part={"d": d}, s=s) is (s == "")
    assert numbers("event.part == event.part", part={"d": d}) is True


def test_a_field_of_doubles_that_is_read_is_told() -> None:
    policy = Policy.parse(
        "event.d > 1.0 || event.part.parts.exists(p, p.d > 1.0) || event.ds.sum() > 1.0 || event.n > 1 || has(event.d)",
        event_types=[ASKED],
        contracts=NUMBERS,
    )
    assert set(policy.numbers) == {(ASKED, "d"), ("shop.v1.Part", "d"), (ASKED, "ds")}


def test_numbers_nested_too_deeply_to_be_checked_are_an_error() -> None:
    deep = Policy.parse("(" * 26 + "event.d" + " + 1.0)" * 26 + " > 1.0", event_types=[ASKED], contracts=NUMBERS)
    assert "nested too deeply" in deep.problem
    with pytest.raises(PolicyError, match="nested too deeply"):
        deep.allows(event=NUMBERS.message_class(ASKED)(), flow=facts())
    assert "@finite" in refused("@finite(event.amount, '')")


# --- Bounds ---


def test_a_long_expression_is_refused() -> None:
    assert "10,001 characters" in refused("true" + " " * (MAX_LENGTH - 3))
    rule("true" + " " * (MAX_LENGTH - 4))


def test_evaluation_is_bounded() -> None:
    nested = "event.lines.all(a, event.lines.all(b, event.lines.all(c, a + b + c != '')))"
    with pytest.raises(PolicyError, match="it would cost"):
        rule(nested).allows(event=asked(lines=["x"] * 1000), flow=facts())
    assert "recursion" in refused("(" * 200 + "true" + ")" * 200)


def test_regular_expressions_can_not_run_away() -> None:
    policy = rule("event.who.matches('^(a+)+$')")
    assert policy.allows(event=asked(who="a" * 20_000 + "!"), flow=facts()) is False


# --- Counts of joins ---


@pytest.mark.parametrize("text, expected", [("", 1), ("  ", 1), ("3", 3), (" 12 ", 12), ("1 + 1", 2)])
def test_a_count_can_be_a_number(text: str, expected: int) -> None:
    assert Count.parse(text, latest_types=FACTS, contracts=CONTRACTS).evaluate({}) == expected


@pytest.mark.parametrize("field", ["amount", "size"])
def test_a_count_can_come_from_the_newest_fact(field: str) -> None:
    count = Count.parse(f"latest['shop.v1.Asked'].{field}", latest_types=FACTS, contracts=CONTRACTS)
    assert count.fixed is None
    assert count.latest_types == {ASKED}
    assert count.evaluate({ASKED: asked(**{field: 7})}) == 7


def test_a_count_that_can_not_be_told_is_an_error() -> None:
    count = Count.parse("latest['shop.v1.Asked'].amount - 3", latest_types=FACTS, contracts=CONTRACTS)
    with pytest.raises(PolicyError, match=r"no shop\.v1\.Asked yet"):
        count.evaluate({})
    with pytest.raises(PolicyError, match="-2, which is not a count"):
        count.evaluate({ASKED: asked(amount=1)})


@pytest.mark.parametrize("text", ["2.5", "latest['shop.v1.Asked'].share", "'3'", "-", "latest['x'].y", "true", "³"])
def test_what_is_no_whole_number_is_no_count(text: str) -> None:
    with pytest.raises(PolicyError):
        Count.parse(text, latest_types=FACTS, contracts=CONTRACTS)
