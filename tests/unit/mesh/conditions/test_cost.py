"""P4: what a condition says depends on no clock. Its cost is told from sizes, before the engine is asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.conditions.cost import MOST, TooDear, Value
from handrail.mesh.conditions.expression import Expression
from handrail.mesh.conditions.look_ups import COUNTS, FACTS, FLOW_TABLES
from handrail.mesh.conditions.patterns import cost_of_pattern
from handrail.mesh.conditions.policy import Policy
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import PolicyError
from tests.support.shop import message, set_of, shop_file

ASKED, PART = "shop.v1.Asked", "shop.v1.Part"
_ASKED = {
    "n": "int64",
    "s": "string",
    "d": "double",
    "b": "bytes",
    "ns": "repeated int64",
    "ss": "repeated string",
    "part": PART,
    "parts": f"repeated {PART}",
    "any": "google.protobuf.Any",
    "json": "google.protobuf.Struct",
    "text": "google.protobuf.StringValue",
    "at": "google.protobuf.Timestamp",
}
_PART = {"n": "int64", "s": "string", "d": "double", "parts": f"repeated {PART}"}


def _contracts() -> Contracts:
    file = shop_file(
        {"Asked": _ASKED, "Part": _PART},
        imports=tuple(f"google/protobuf/{name}.proto" for name in ("any", "struct", "wrappers", "timestamp")),
    )
    entry = message("MarksEntry", {"key": "string", "value": "int64"})
    entry.options.map_entry = True
    file.message_type[0].nested_type.append(entry)
    marks = file.message_type[0].field.add(name="marks", number=20, label=FieldDescriptorProto.LABEL_REPEATED)
    marks.type, marks.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{ASKED}.MarksEntry"
    return Contracts.from_descriptor_set(set_of(file))


CONTRACTS = _contracts()


def asked(contracts: Contracts = CONTRACTS, **fields: Any) -> Message:
    return contracts.message_class(ASKED)(**fields)


def compiled(text: str, contracts: Contracts = CONTRACTS) -> Expression:
    return Expression.compile(
        text, contracts=contracts, event_type=ASKED, first_type=ASKED, tables=FLOW_TABLES, types=(ASKED, PART)
    )


def values(expression: Expression, event: Message, facts: int = 0) -> dict[str, Value]:
    there: dict[str, Value] = {"event": event, "flow.first": event}
    there |= {"flow.elapsed": timedelta(seconds=5)}
    for fact in expression.facts:
        one = CONTRACTS.message_class(fact.message_type)()
        there[fact.variable] = facts if fact.table == COUNTS else [one] * facts if fact.table == FACTS else one
    return there


def cost(text: str, event: Message, facts: int = 0, contracts: Contracts = CONTRACTS) -> int:
    expression = compiled(text, contracts)
    assert expression.cost is not None
    return expression.cost.of(values(expression, event, facts))


# --- What is too dear ---

X = "x" * 1000
DEAR: list[tuple[str, dict[str, Any]]] = [
    ("event.ns.map(a, event.ns.map(b, a + b)).size() > 0", {"ns": range(1000)}),
    ("event.ss.all(a, event.ss.all(b, event.ss.all(c, a + b + c != '')))", {"ss": ["x"] * 100}),
    ("event.ns.map(a, a).size() > 0", {"ns": range(9000)}),
    ("event.ns.all(a, a >= 0)", {"ns": range(9990)}),
    ("event.ns.exists(a, event.s + event.s == '')", {"ns": range(300), "s": X * 100}),
    ("event.ns.exists(a, event.s.contains(event.part.s))", {"ns": range(300), "s": X * 50, "part": {"s": X}}),
    ("event.s.contains(event.part.s)", {"s": X * 100, "part": {"s": X * 50 + "y"}}),
    ("event.s.matches('(x|x?x?x?x?x?x?x?x?x?x?){100}y')", {"s": X * 10}),
    ("event.s.matches('\\\\pL{100}')", {"s": "a"}),
    ("event.ss.exists(p, event.s.matches(p))", {"s": X, "ss": [f"x{{900}}{number}" for number in range(100)]}),
    ("event.s.matches('^' + event.ss[0] + string(event.n))", {"s": X, "ss": ["x"]}),
    ("matches(event.s, event.part.s)", {"s": "x", "part": {"s": "x|" * 5000}}),
    ("event.parts.exists(p, p.parts == event.parts && p.n > 3)", {"parts": [{"parts": [{}] * 30}] * 300}),
    ("event.parts.all(p, event.parts.all(q, p == q))", {"parts": [{"n": 1}] * 90}),
    ("event.part in event.parts.map(p, p)", {"parts": [{"n": 1, "s": X}] * 2000}),
    ("event.ns.exists(a, event == flow.first)", {"ns": range(1000)}),
    ("event.ns.exists(a, dyn(event).part.d == 4.0)", {"ns": range(1000)}),
    ("event.ns.exists(a, dyn(event.ns) == 7.5)", {"ns": range(1000)}),
    ("event.ns.exists(a, a in event.ns.map(b, b))", {"ns": range(400)}),
    ("event.marks.exists(k, event.marks.exists(l, k + l == ''))", {"marks": {f"{n}": n for n in range(200)}}),
    ("event.json.items.exists(i, event.json.items.exists(j, i == j))", {"json": {"items": list(range(300))}}),
    ("event.ns.exists(a, event.text + event.s == '')", {"ns": range(100), "text": {"value": X * 100}}),
    ("event.ns.exists(a, event.ns.exists(b, duration(event.s) > flow.elapsed))", {"ns": range(100), "s": "1s" * 500}),
    ("{'a': event.ns}['a'].exists(a, {'b': event.ns}.b.exists(b, a != b && false))", {"ns": range(200)}),
    ("[event.ns, event.ns].exists(l, l.exists(a, l.exists(b, a + b < 0)))", {"ns": range(200)}),
    ("(event.n > 0 ? event.ns : [1]).exists(a, event.ns.exists(b, a + b < 0))", {"ns": range(200)}),
    ("event.ns.filter(a, a > 5).map(a, [a, a]).exists(l, event.ns.exists(b, b in l && b < 0))", {"ns": range(200)}),
    ("event.n > 5", {"parts": [{}] * 400_000}),
    # Copies: of a message's fields, and of texts in lists and maps at each access.
    ("event.ns.all(a, shop.v1.Asked{parts: event.parts}.n == 0)", {"ns": range(300), "parts": [{}] * 2000}),
    ("event.ns.all(a, shop.v1.Asked{part: event.part}.n == 0)", {"ns": range(300), "part": {"parts": [{}] * 2000}}),
    ("[event.s].all(t, event.ns.all(a, shop.v1.Asked{s: t}.n == 0))", {"ns": range(300), "s": X * 400}),
    ("event.ns.all(a, !('y' in event.ss))", {"ns": range(300), "ss": [X * 400]}),
    ("event.ns.all(a, event.ss.all(t, true))", {"ns": range(300), "ss": [X * 400]}),
    ("event.ns.all(a, event.ss != ['y'])", {"ns": range(300), "ss": [X * 400]}),
    ("event.ns.all(a, (event.ss + event.ss).size() == 2)", {"ns": range(300), "ss": [X * 400]}),
    ("event.ns.all(a, event.marks.all(k, true))", {"ns": range(300), "marks": {X * 400: 1}}),
    ("event.ns.all(a, event.marks != {'y': 1})", {"ns": range(300), "marks": {X * 400: 1}}),
    ("[event.s].all(t, event.ns.all(a, !(t in event.marks)))", {"ns": range(300), "s": X * 400, "marks": {"y": 1}}),
    # The length of a joined text, whatever was joined.
    ("[(event.n > 0 ? event.s : 'y') + 'x'].all(t, event.ns.all(a, size(t) > 3))", {"ns": range(300), "s": X * 400}),
    ("[event.text + 'x'].all(t, event.ns.all(a, size(t) > 3))", {"ns": range(300), "text": {"value": X * 400}}),
    # Characters of four bytes.
    ("event.s.contains(event.part.s)", {"s": "\U0001f600" * 50_000, "part": {"s": "\U0001f600" * 24_000 + "b"}}),
]


@pytest.mark.parametrize("text, fields", DEAR, ids=[text[:60] for text, _ in DEAR])
def test_p4_what_would_take_long_is_refused_before_it_is_tried(text: str, fields: dict[str, Any]) -> None:
    policy = Policy.parse(text, event_types=[ASKED], contracts=CONTRACTS, first_types=[ASKED])
    with pytest.raises(PolicyError, match=f"can't be evaluated: it would cost [0-9,]+ or more; at most {MOST:,} is"):
        policy.allows(event=asked(**fields), flow=_Flow(asked(**fields)))


class _Flow:
    """A flow with nothing but its first event."""

    def __init__(self, first: Message) -> None:
        self.first = first
        self.elapsed = timedelta(seconds=5)

    def count(self, message_type: str) -> int:
        return 0

    def latest(self, message_type: str) -> Message | None:
        return None

    def facts(self, message_type: str) -> list[Message]:
        return []

    def proposals(self, message_type: str) -> list[Message]:
        return []


ORDINARY = [
    "event.n >= 1000 && event.s != flow.first.s",
    "flow.facts['shop.v1.Asked'].map(p, p.n).sum() + event.n > flow.first.n",
    "flow.facts['shop.v1.Asked'].filter(p, p.s == flow.first.s).map(p, p.n).sum() > 5",
    "flow.facts['shop.v1.Asked'].exists(p, p.s.startsWith('a')) || flow.counts['shop.v1.Part'] > 4",
    "flow.facts['shop.v1.Asked'].exists(p, p.part.d > 1.5)",
    "flow.facts['shop.v1.Asked'].map(p, p.s).all(s, s.size() < 20)",
    "event.parts.all(p, p.n > 0 && p.s.matches('^[A-Z]{2}[0-9]{1,10}$'))",
    "event.s.matches('^[a-z0-9._-]+@[a-z0-9-]+(\\\\.[a-z0-9-]+)+$')",
    "event.part == flow.first.part || event.parts == flow.first.parts",
    "event.s in ['EUR', 'USD', 'GBP'] || event.ss.exists(s, s in ['a', 'b'])",
    "event.at > timestamp('2026-01-01T00:00:00Z') && flow.elapsed < duration('48h')",
    "event.parts.map(p, p.n).sum() > 100",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_conditions_over_full_lists_cost_far_less_than_is_allowed(text: str) -> None:
    parts = [{"n": 5, "s": "AB123", "d": 2.0}] * 40
    event = asked(n=5, s="acc-12345", ss=["one", "two"], parts=parts, part=parts[0])
    assert cost(text, event, facts=300) < MOST / 2


@pytest.mark.parametrize("rounds", [9_500, 9_700, 9_800, 9_900, 10_000, 10_001])
def test_p4_the_engine_never_gives_up_on_what_is_allowed(rounds: int) -> None:
    expression = compiled("event.ns.all(a, true)")
    try:
        answer = expression.evaluate({"event": asked(ns=[1] * rounds)})
    except PolicyError as error:
        assert "it would cost" in error.text  # noqa: PT017
    else:
        assert answer is True


# --- Below the limit the engine decides ---

_LISTS = [
    "event.ns",
    "event.ns.filter(x, x > 2)",
    "event.parts.map(p, p.n)",
    "[1, 2, event.n]",
    "(event.ns + [event.n])",
]
_NUMBERS = ["event.n", "event.part.n", "event.ns.size()", "event.ns.sum()", "size(event.s)", "3", "int(event.d)"]
_KNOWN = ["event.s", "event.part.s", "'ab'", "(event.s + event.part.s)", "event.parts[0].s"]
_TEXTS = [*_KNOWN, "string(event.n)"]


@st.composite
def conditions(draw: st.DrawFn, depth: int = 3) -> str:
    def one_of(choices: list[str]) -> str:
        return draw(st.sampled_from(choices))

    forms = ["number", "text", "match", "pattern", "in", "list", "double", "has", "whole"]
    form = one_of([*forms, "and", "or", "not", "exists", "all", "if"] if depth else forms)
    if form in ("and", "or"):
        operator = "&&" if form == "and" else "||"
        return f"({draw(conditions(depth=depth - 1))} {operator} {draw(conditions(depth=depth - 1))})"
    if form == "not":
        return f"!({draw(conditions(depth=depth - 1))})"
    if form in ("exists", "all"):
        return (
            f"{one_of(_LISTS)}.{form}(v{depth}, v{depth} > {one_of(_NUMBERS)} || {draw(conditions(depth=depth - 1))})"
        )
    if form == "if":
        return f"({draw(conditions(depth=0))} ? {draw(conditions(depth=depth - 1))} : {draw(conditions(depth=0))})"
    return {
        "number": f"{one_of(_NUMBERS)} {one_of(['<', '>=', '==', '!='])} {one_of(_NUMBERS)}",
        "text": f"{one_of(_TEXTS)} {one_of(['<', '==', '!='])} {one_of(_TEXTS)}",
        "match": f"{one_of(_TEXTS)}.{one_of(['contains', 'startsWith', 'endsWith'])}({one_of(_TEXTS)})",
        # A pattern that is computed is charged as the dearest of its length: too dear for this property.
        "pattern": f"{one_of(_TEXTS)}.matches({one_of(_KNOWN)})",
        "in": f"{one_of(_NUMBERS)} in {one_of(_LISTS)}",
        "list": f"{one_of(_LISTS)} == {one_of(_LISTS)}",
        "double": f"event.d {one_of(['<', '>'])} 1.5",
        "has": f"has({one_of(['event.part', 'event.s', 'event.part.s'])})",
        "whole": f"{one_of(['event.part == event.parts[0]', 'event.part in event.parts', 'event == flow.first'])}",
    }[form]


@st.composite
def events(draw: st.DrawFn) -> Message:
    number = st.integers(-5, 5)
    text = st.text("ab(.*", max_size=4)
    parts = [{"n": draw(number), "s": draw(text)} for _ in range(draw(st.integers(0, 3)))]
    fields: dict[str, Any] = {"n": draw(number), "s": draw(text), "d": draw(st.floats()), "parts": parts}
    return asked(**fields, ns=draw(st.lists(number, max_size=6)), part={"n": draw(number), "s": draw(text)})


def answer_of(expression: Expression, there: dict[str, Value], *, engine: bool) -> object:
    try:
        if engine:
            value = expression._compiled.eval(data=there)
            return value.value() if value.type().name() == "BOOL" else "error"
        return expression.evaluate(there)
    except Exception:
        return "error"


@given(text=conditions(), event=events())
def test_below_the_limit_the_answer_is_the_engine_s(text: str, event: Message) -> None:
    expression = compiled(text)
    assert expression.cost is not None
    there = values(expression, event)
    assert expression.cost.of(there) <= MOST
    assert answer_of(expression, there, engine=False) == answer_of(expression, there, engine=True)


# --- The same for every reader ---


@given(text=conditions(), event=events())
def test_p4_every_reader_comes_to_the_same_cost(text: str, event: Message) -> None:
    other = _contracts()
    read_there = other.message_class(ASKED).FromString(event.SerializeToString())
    assert cost(text, read_there, contracts=other) == cost(text, event)
    assert cost(text, event) == cost(text, event)


def test_a_longer_list_and_a_longer_text_cost_more() -> None:
    loop, text = "event.ns.exists(a, event.s == string(a))", "event.s.contains('y')"
    assert cost(loop, asked(ns=[1, 2])) > cost(loop, asked(ns=[1])) > cost(loop, asked())
    assert cost(text, asked(s=X * 2)) > cost(text, asked(s=X)) > cost(text, asked())


def test_loops_in_loops_multiply() -> None:
    once = cost("event.ns.exists(a, a < 0)", asked(ns=range(50)))
    twice = cost("event.ns.exists(a, event.ns.exists(b, b < 0))", asked(ns=range(50)))
    assert twice > 40 * once


# --- Regular expressions ---


@pytest.mark.parametrize(
    "dearer, than",
    [
        ("a{500}", "a{5}"),
        ("(ab){100}", "(ab)"),
        ("((ab){10}){10}", "(ab){10}"),
        (".{100}", "a{100}"),
        ("[a-z]{100}", "a{100}"),
        ("\\pL", "[a-zA-Z]"),
        ("[\\p{Greek}x]", "[a-zA-Z]"),
        ("(?i)abc", "abc"),
        ("(?is:abc)", "abc"),
        ("(?:a{20,}b)", "(?:ab)"),
        ("\\Qabcdefgh\\E", "ab"),
        ("((((a))))", "a"),
        ("a{9999999999}", "a{1000}"),
    ],
)
def test_a_larger_pattern_costs_more(dearer: str, than: str) -> None:
    assert cost_of_pattern(dearer).compile > cost_of_pattern(than).compile
    assert cost_of_pattern(dearer).step >= cost_of_pattern(than).step


@given(pattern=st.text("ab(){}[]\\pL*+?.|^$0129,:iQE", max_size=40))
def test_every_text_has_a_cost_as_a_pattern(pattern: str) -> None:
    assert cost_of_pattern(pattern).compile >= 0


# --- Before there is a message ---


@pytest.mark.parametrize(
    "text, warned",
    [
        ("event.n > 5 && event.s == 'x' && event.d > 1.5", False),
        ("flow.facts['shop.v1.Asked'].map(p, p.n).sum() > 5", False),
        ("event.ns.exists(n, n > 5)", True),
        ("event.parts.exists(p, p.n > 5)", True),
        ("event.part == flow.first.part", True),  # a part may hold parts
        ("flow.facts['shop.v1.Asked'].exists(p, p.n == 5 && flow.facts['shop.v1.Part'].exists(q, q.n == p.n))", True),
        ("event.s.matches('^[a-z]+$')", True),
        ("event.json.a == 1 || event.any == event.any", True),
        ("event.marks.exists(k, k == 'a')", True),
    ],
)
def test_a_condition_is_told_to_be_dear_by_its_contracts(text: str, warned: bool) -> None:
    policy = Policy.parse(text, event_types=[ASKED], contracts=CONTRACTS, fact_types=[ASKED, PART], first_types=[ASKED])
    assert policy.may_be_too_dear(CONTRACTS) is warned


def test_too_dear_is_an_error_of_the_condition() -> None:
    assert issubclass(TooDear, PolicyError)
    assert "10^15" in TooDear(10**40).text


# --- What is small ---


@given(text=conditions(), event=events(), facts=st.integers(0, 14))
def test_p4_small_messages_never_cost_more_than_their_bound(text: str, event: Message, facts: int) -> None:
    wrapped = f"({text}) || flow.facts['{PART}'].exists(p, p.s + event.s == event.part.s)"
    expression = compiled(wrapped)
    assert expression.cost is not None
    if expression.cost.bound is not None:
        assert expression.cost.of(values(expression, event, facts)) <= expression.cost.bound


@pytest.mark.parametrize("text, fields", DEAR)
def test_p4_what_is_dear_is_refused_although_small_messages_cost_little(text: str, fields: dict[str, Any]) -> None:
    expression = compiled(text)
    assert expression.cost is not None
    with pytest.raises(TooDear):
        expression.cost.require(values(expression, asked(**fields)))


def test_small_messages_are_not_examined(monkeypatch: pytest.MonkeyPatch) -> None:
    expression = compiled("event.s != flow.first.s || flow.facts['shop.v1.Part'].map(p, p.n * 1000).sum() > event.n")
    assert expression.cost is not None
    monkeypatch.setattr(expression.cost, "of", lambda there: pytest.fail("they are examined"))
    expression.cost.require(values(expression, asked(s="a"), facts=3))
