"""Flows and filters for tests, close enough to each other that filters find some."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import timedelta

from hypothesis import strategies as st
from sqlalchemy import Connection, insert

from handrail.mesh.wire import ids
from handrail.visibility.filter import Scope
from handrail.visibility.filter.fields import STATUSES
from handrail.visibility.filter.syntax import And, Comparator, Comparison, Node, Not, Or, Word
from handrail.visibility.filter.value import Value
from handrail.visibility.index import schema
from tests.support.filter_meaning import DURATIONS, FLAGS, NOW, Flow, Row

ATTRIBUTES = ("amount", "country", "status")
TYPES = ("refund", "order")
KEYS = ("a", "ä", "17")
SCOPE = Scope(now=NOW, attributes=frozenset(ATTRIBUTES), flow_types=frozenset(TYPES))

OPEN = ("RUNNING", "WAITING_APPROVAL", "ESCALATED", "COMPENSATING")
"""The statuses of flows that have not ended."""

TEXTS = ("", "a", "A", "ab", "aB", "ba", "a%b", "a_b", "a/b", "a\\*", "ä", "Ä", "\ud7ff", "\U0010ffff", "10", "'\"")
TIMES = [NOW + timedelta(seconds=seconds) for seconds in (-7 * 86400, -7200, -300, -30, 0, 30, 7200)]

_IDS = [ids.flow_id_from_key(flow_type, key) for flow_type in TYPES for key in KEYS]


def population(size: int) -> list[Flow]:
    """Some flows, the same in every run."""
    chance = random.Random(size)
    return [_flow(chance) for _ in range(size)]


def store(connection: Connection, flows: Sequence[Flow]) -> None:
    """Stores flows; the first is at sequence 1."""
    failures = 0
    for first, flow in enumerate(flows, 1):
        connection.execute(insert(schema.flow).values(first_sequence=first, **flow.flow))
        for table, rows in flow.rows.items():
            for row in rows:
                failures += 1
                key = {"sequence": failures} if table == "failure" else {}
                connection.execute(insert(schema.metadata.tables[table]).values(first_sequence=first, **key, **row))


def _flow(chance: random.Random) -> Flow:
    def text() -> str:
        return chance.choice(TEXTS)

    def rows(count: int) -> range:
        return range(chance.randint(0, count))

    maybe_time = [None, *TIMES]
    flow: Row = {
        "flow_type": chance.choice(TYPES),
        "flow_id": chance.choice(_IDS),
        "key": text(),
        "version": chance.randint(0, 3),
        "status": chance.choice(["", *STATUSES]),
        "reason": text(),
        "halt_mode": 0,
        "requester": text(),
        **{name: chance.choice(maybe_time) for name in ("started", "updated", "ended", "deadline", "stuck_since")},
        "retrying": chance.random() < 0.5,
        "last_sequence": 1,
        "messages": chance.randint(0, 3),
    }
    if flow["status"] in OPEN:
        flow = {**flow, "ended": None}
    names, kinds = chance.sample(TEXTS, 2), ("PENDING", "APPROVED")
    tables: dict[str, list[Row]] = {
        "owed": [
            {"step": names[row], "agent": text(), "runs": 1, "attempt": 1, "due": chance.choice(maybe_time)}
            for row in rows(2)
        ],
        "attribute": [
            {"name": name, "text": chance.choice([None, text()]), "number": chance.choice([None, -1.0, 10.0, 100.5])}
            for name in chance.sample(ATTRIBUTES, chance.randint(0, 3))
        ],
        "approval": [
            {"proposal_id": str(row), "status": chance.choice(kinds), "step": text(), "agent": text(), "type": ""}
            for row in rows(2)
        ],
        "escalation": [
            {"escalation_id": str(row), "cause": "", "step": text(), "reason": "", "opened": NOW} for row in rows(1)
        ],
        "failure": [
            {"flow_type": "", "step": text(), "agent": text(), "error_class": text(), "text": "", "signature": ""}
            | {"time": NOW}
            for row in rows(2)
        ],
    }
    return Flow(flow, {table: tuple(rows) for table, rows in tables.items()})


# Filters.

_SAME = (Comparator.EQUAL, Comparator.NOT_EQUAL)
_ORDER = (Comparator.LESS, Comparator.AT_MOST, Comparator.GREATER, Comparator.AT_LEAST)
_ENDS = ((False, False), (False, True), (True, False), (True, True))


def _values(texts: Iterable[str], *, quoted: bool) -> list[Value]:
    """The texts with and without wildcards; without quotes, none may be empty."""
    return [
        Value(text=text, quoted=quoted, open_start=start, open_end=end)
        for text in texts
        for start, end in _ENDS
        if text or not start or end
    ]


def _plain(texts: Iterable[str]) -> list[Value]:
    return [Value(text=text, quoted=quoted) for text in texts for quoted in (False, True)]


def _comparisons(
    names: Iterable[str], comparators: Iterable[Comparator], values: Iterable[Value]
) -> Iterable[Comparison]:
    listed = list(values)
    return (Comparison(name, comparator, value) for name in names for comparator in comparators for value in listed)


_ANY = [Value(text="", open_end=True)]
_WILD = [*_values(TEXTS, quoted=True), *_values(["ab", "10", "o'neil"], quoted=False), *_ANY]
_NAMES = _values(["refund", "fun", _IDS[0], _IDS[0][:4]], quoted=False)
_NUMERALS = _plain(["-1", "10", "1e1", "100.5", "99"])
_DECLARED = ("attributes.amount", "country", "attributes.status")
_TIMES = [*DURATIONS, *(time.isoformat() for time in TIMES)]

CONDITIONS: list[Node] = [
    *_comparisons(["requester", "step", "agent", "error_class"], (*_SAME, Comparator.HAS), _WILD),
    *_comparisons(["flow_type", "flow_id"], (*_SAME, Comparator.HAS), _NAMES),
    *_comparisons(["status"], (*_SAME, Comparator.HAS), _plain([*STATUSES, "failed"])),
    *_comparisons(["version", "messages"], (*_SAME, *_ORDER), _plain(["0", "2"])),
    *_comparisons(["age"], _ORDER, _plain(DURATIONS)),
    *_comparisons(["started", "updated", "ended", "deadline"], _ORDER, _plain(_TIMES)),
    *_comparisons(["started", "updated", "ended", "deadline"], [Comparator.HAS], _ANY),
    *_comparisons(FLAGS, _SAME, _plain(["true", "false"])),
    *_comparisons(["key"], _SAME, _plain(KEYS)),
    *_comparisons(_DECLARED, (*_SAME, Comparator.HAS), [*_WILD, *_NUMERALS]),
    *_comparisons(_DECLARED, _ORDER, [*_NUMERALS, *(Value(text=text, quoted=True) for text in TEXTS)]),
    *(Comparison("attributes", Comparator.HAS, Value(text=name)) for name in ATTRIBUTES),
    *(Word(Value(text=name)) for name in FLAGS),
    *(Word(value) for value in (*_WILD, *_NAMES, Value(text=_IDS[0][:4].upper())) if value.text),
]
"""Conditions of all fields with all comparators that they take."""


def _some(parts: st.SearchStrategy[Node]) -> st.SearchStrategy[tuple[Node, ...]]:
    return st.lists(parts, min_size=2, max_size=4).map(tuple)


FILTERS: st.SearchStrategy[Node] = st.recursive(
    st.sampled_from(CONDITIONS),
    lambda parts: st.builds(And, _some(parts)) | st.builds(Or, _some(parts)) | st.builds(Not, parts),
    max_leaves=12,
)

_PIECES = (
    *(
        "(",
        ")",
        " ",
        " AND ",
        " OR ",
        "NOT ",
        "-",
        "*",
        '"',
        "'",
        "\\",
        "\\*",
        "=",
        "!=",
        "<",
        "<=",
        ":",
        ">",
        ".",
        "and",
    ),
    *(
        "flow_type",
        "status",
        "version",
        "age",
        "updated",
        "deadline",
        "key",
        "attributes.amount",
        "attributes",
        "stuck",
    ),
    *("step", "9999999999", "1e999", "-1e308", "999999999d", "2h", "0001-01-01T00:00:00+14:00", "9999-12-31", "failed"),
    *("\0", "\ud800", "\u202e", "\x1b[2J", "\ud7ff", "\U0010ffff", "ä", "a", "%", "_", "/", "\n"),
)
TYPED = st.text() | st.lists(st.sampled_from(_PIECES), max_size=14).map("".join)
"""What somebody may type, much of it close to a filter."""
