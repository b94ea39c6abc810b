"""Names and values: unknown ones are refused with the nearest known one; a key is looked for by its flow's id."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from handrail.mesh.errors import HandrailError
from handrail.mesh.wire import ids
from handrail.visibility.filter import check, parse, quantity
from handrail.visibility.filter.comparison import MAX_KEY_TYPES
from handrail.visibility.filter.condition import All, Condition, Either, IsOneOf, No, OfFlow, equal
from handrail.visibility.filter.fields import FIELDS
from tests.support.filter_examples import SCOPE


def checked(text: str) -> Condition:
    return check(parse(text), SCOPE)


def keyed(flow_type: str, key: str) -> tuple[str, str]:
    return flow_type, ids.flow_id_from_key(flow_type, key)


@pytest.mark.parametrize(
    "text, column, said",
    [
        ("statsu = FAILED", 1, 'there is no field "statsu"; did you mean status?'),
        ("a AND amout > 1", 7, 'there is no field "amout"; did you mean amount?'),
        ("attributes.amout = 1", 1, 'no template declares an attribute "amout"; did you mean amount?'),
        ("attributes:amout", 12, 'no template declares an attribute "amout"; did you mean amount?'),
        ("attributes = 1", 1, "name an attribute: attributes.NAME = VALUE, or attributes:NAME"),
        ("status = ESCALATD", 10, "status is one of RUNNING, "),
        ("status = COMP*", 10, "status is one of RUNNING, "),
        ("status < FAILED", 1, 'status is compared by = != :, not by "<"'),
        ("flow_type > a", 1, 'flow_type is compared by = != :, not by ">"'),
        ("stuck = yes", 9, 'stuck is true or false; found "yes"'),
        ("version = 1.5", 11, "version is a whole number up to 2147483647"),
        ("messages > 2147483648", 12, "messages is a whole number up to 2147483647"),
        ("age > 2", 7, "age is a duration such as 30s, 5m, 2h or 7d"),
        ("age > 36501d", 7, "age is a duration such as 30s, 5m, 2h or 7d, of a hundred years at most"),
        ("age > 2026-11-28", 7, "age is a duration"),
        ("age = 2h", 1, 'age is compared by < <= > >=, not by "="'),
        ("updated = 10m", 1, 'updated is compared by < <= > >=, not by "="'),
        ("ended:2026-11-28", 1, 'ended is compared by < <= > >= (or :* for any time), not by ":"'),
        ("started > yesterday", 11, "started is a time such as 2026-11-28T10:00:00Z, or how long ago"),
        ("deadline < 2026-13-01", 12, "deadline is a time such as 2026-11-28T10:00:00Z, or how far ahead"),
        ("key = a*", 7, "a key is looked up as a whole: it takes no *"),
        ("key:a", 1, 'key is compared by = !=, not by ":"'),
        ("amount > 1*", 10, '">" takes no *'),
        ("age", 1, 'age is a field: compare it with a value; to search for the word, write "age"'),
        ('""', 1, "there is nothing to search for"),
        ("*", 1, "there is nothing to search for"),
        ("a" * 201, 1, "201 characters are looked for within texts; at most 200 can be"),
        ("requester:" + "a" * 201, 11, "201 characters are looked for within texts"),
        (f'requester = "*{"a" * 201}*"', 13, "201 characters are looked for within texts"),
        ("status = \x1b[2J", 10, r'"\x1b[2J" has a character'),
        ('status = "\x1b[2J"', 10, r"status is one of"),
    ],
)
def test_a_wrong_name_or_value_is_refused_where_it_stands(text: str, column: int, said: str) -> None:
    with pytest.raises(HandrailError) as refused:
        checked(text)
    assert refused.value.text.startswith(f"the filter is wrong at column {column}: {said}")
    assert refused.value.text.isprintable()
    assert refused.value.reason_name == "BAD_FILTER"


def test_a_wrong_status_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(HandrailError, match='found "escalatd"; did you mean ESCALATED'):
        checked("status = escalatd")


def test_a_status_may_be_typed_in_any_case() -> None:
    assert checked("status = Escalated") == OfFlow("status", equal("ESCALATED"))


@pytest.mark.parametrize("name", ["amount", "amount.units"])
def test_a_declared_attribute_needs_no_prefix(name: str) -> None:
    scope = replace(SCOPE, attributes=frozenset({name}))
    assert check(parse(f"{name} = 1"), scope) == check(parse(f"attributes.{name} = 1"), scope)
    assert check(parse(f"{name}:*"), scope) == check(parse(f"attributes:{name}"), scope)


def test_an_attribute_with_the_name_of_a_field_needs_the_prefix() -> None:
    assert checked("status = failed") == OfFlow("status", equal("FAILED"))
    assert checked("attributes.status = failed") != checked("status = failed")


@pytest.mark.parametrize("name", [name for name, field in FIELDS.items() if not field.places])
def test_every_field_without_a_place_has_a_condition_of_its_own(name: str) -> None:
    assert checked("key = 1" if name == "key" else name) is not None


def test_a_key_is_looked_for_in_every_flow_type() -> None:
    assert checked("key = 17") == IsOneOf((keyed("order", "17"), keyed("refund", "17")))


def test_a_key_beside_a_flow_type_is_looked_for_in_this_one_alone() -> None:
    alone = IsOneOf((keyed("refund", "17"),))
    assert checked("flow_type = refund AND key = 17") == All((OfFlow("flow_type", equal("refund")), alone))
    assert checked("flow_type = refund (stuck OR -key = 17)") == All(
        (OfFlow("flow_type", equal("refund")), Either((checked("stuck"), No(alone))))
    )
    everywhere = Either((OfFlow("flow_type", equal("refund")), checked("key = 17")))
    assert checked("flow_type = refund OR key = 17") == everywhere


@pytest.mark.parametrize("types", [0, MAX_KEY_TYPES + 1])
def test_a_key_needs_its_flow_type_if_there_are_none_or_too_many(types: int) -> None:
    scope = replace(SCOPE, flow_types=frozenset(f"type-{number}" for number in range(types)))
    with pytest.raises(HandrailError, match="name it, as in flow_type = TYPE AND key = KEY"):
        check(parse("key = 17"), scope)
    assert check(parse("flow_type = refund key = 17"), scope) == checked("flow_type = refund key = 17")


@pytest.mark.parametrize(
    "text, value",
    [
        ("30s", timedelta(seconds=30)),
        ("1.5h", timedelta(minutes=90)),
        ("36500d", timedelta(days=36500)),
        ("36500.1d", None),
        ("9" * 400 + "s", None),
        ("-1s", None),
        ("2w", None),
        ("٣s", None),
    ],
)
def test_durations(text: str, value: timedelta | None) -> None:
    assert quantity.duration(text) == value


@pytest.mark.parametrize(
    "text, value",
    [
        ("2026-11-28", datetime(2026, 11, 28, tzinfo=UTC)),
        ("2026-11-28T10:00:00Z", datetime(2026, 11, 28, 10, tzinfo=UTC)),
        ("2026-11-28t10:00:00.1234567z", datetime(2026, 11, 28, 10, 0, 0, 123456, UTC)),
        ("2026-11-28T10:00:00+02:00", datetime(2026, 11, 28, 8, tzinfo=UTC)),
        ("2026-11-28T10:00:00", None),
        ("2026-02-30", None),
        ("0001-01-01T00:00:00+01:00", None),
        ("2026-11-28T10:00:00+99:00", None),
    ],
)
def test_times(text: str, value: datetime | None) -> None:
    assert quantity.time(text) == value


@pytest.mark.parametrize(
    "text, value",
    [("12", 12.0), ("-0.5", -0.5), ("2e3", 2000.0), ("1e999", None), ("nan", None), ("1_000", None), (".5", None)],
)
def test_numbers(text: str, value: float | None) -> None:
    assert quantity.number(text) == value
