"""What a filter means, said once more in plain Python: without SQL, and without the conditions that `check` makes."""

from __future__ import annotations

import operator
import string
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from handrail.mesh.wire import ids
from handrail.visibility.filter.syntax import And, Comparator, Comparison, Node, Not, Or, Word
from handrail.visibility.filter.value import Value

NOW = datetime(2026, 11, 28, 12, 0, 0, 500, tzinfo=UTC)
DURATIONS = {"0s": 0, "30s": 30, "5m": 300, "2h": 7200, "1.5h": 5400, "7d": 7 * 86400}
"""The durations that generated filters have, in seconds."""

Row = Mapping[str, object]

_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)
_COMPARED: Mapping[Comparator, Callable[[object, object], bool]] = {
    Comparator.EQUAL: operator.eq,
    Comparator.LESS: operator.lt,  # type: ignore[dict-item]  # both sides have one type
    Comparator.AT_MOST: operator.le,  # type: ignore[dict-item]
    Comparator.GREATER: operator.gt,  # type: ignore[dict-item]
    Comparator.AT_LEAST: operator.ge,  # type: ignore[dict-item]
}


@dataclass(frozen=True)
class Flow:
    """The rows of one flow, without `first_sequence`."""

    flow: Row
    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    def of(self, table: str, column: str) -> list[object]:
        """A column of the flow's rows in another table."""
        return [row[column] for row in self.rows.get(table, ())]


def holds(node: Node, flow: Flow) -> bool:
    """Whether a flow passes a filter."""
    match node:
        case And(items):
            return all(holds(item, flow) for item in items)
        case Or(items):
            return any(holds(item, flow) for item in items)
        case Not(item):
            return not holds(item, flow)
        case Word(value):
            return _flag(value.text, flow) if value.text in FLAGS and not value.quoted else _occurs(value.text, flow)
        case Comparison(name, Comparator.NOT_EQUAL, value):
            return not holds(Comparison(name, Comparator.EQUAL, value), flow)
        case Comparison(name, comparator, value):
            return _compares(name, comparator, value, flow)


def _compares(name: str, comparator: Comparator, value: Value, flow: Flow) -> bool:
    if name in FLAGS:
        return _flag(name, flow) == (value.text == "true")
    if name == "key":
        return flow.flow["flow_id"] == ids.flow_id_from_key(str(flow.flow["flow_type"]), value.text)
    if name == "status":
        return flow.flow["status"] == value.text.upper()
    if name == "attributes":
        return value.text in flow.of("attribute", "name")
    if name in ("version", "messages"):
        return _COMPARED[comparator](flow.flow[name], int(value.text))
    if name in ("age", "started", "updated", "ended", "deadline"):
        return _time(name, comparator, value, flow)
    if name in ("flow_type", "flow_id", "requester"):
        return _text_fits([flow.flow[name]], comparator, value)
    if name == "error_class":
        return _text_fits(flow.of("failure", name), comparator, value)
    if name in ("step", "agent"):
        asked = [row[name] for row in flow.rows.get("approval", ()) if row["status"] == "PENDING"]
        stuck = flow.of("escalation", "step") if name == "step" else []
        return _text_fits([*flow.of("owed", name), *asked, *stuck], comparator, value)
    return _attribute(name.removeprefix("attributes."), comparator, value, flow)


def _time(name: str, comparator: Comparator, value: Value, flow: Flow) -> bool:
    time = flow.flow["started" if name == "age" else name]
    if not isinstance(time, datetime):
        return False
    if value.text == "":
        return True
    if value.text not in DURATIONS:
        return _COMPARED[comparator](time, datetime.fromisoformat(value.text))
    distance = time - NOW if name == "deadline" else NOW - time
    return _COMPARED[comparator](distance, timedelta(seconds=DURATIONS[value.text]))


def _attribute(name: str, comparator: Comparator, value: Value, flow: Flow) -> bool:
    rows = [row for row in flow.rows.get("attribute", ()) if row["name"] == name]
    if value.text == "" and (value.open_start or value.open_end):
        return bool(rows)
    texts = [row["text"] for row in rows if row["text"] is not None]
    numbers = [row["number"] for row in rows if row["number"] is not None]
    numeric = not value.quoted and not value.open_start and not value.open_end and _is_number(value.text)
    if comparator in (Comparator.EQUAL, Comparator.HAS):
        equal = numeric and comparator is Comparator.EQUAL and float(value.text) in numbers
        return equal or _text_fits(texts, comparator, value)
    compared = _COMPARED[comparator]
    if numeric:
        return any(compared(number, float(value.text)) for number in numbers)
    return any(compared(text, value.text) for text in texts)


def _text_fits(texts: Iterable[object], comparator: Comparator, value: Value) -> bool:
    wanted = value.text
    for text in map(str, texts):
        if wanted == "" and (value.open_start or value.open_end):
            fits = text != ""
        elif comparator is Comparator.HAS:
            fits = wanted.translate(_LOWER) in text.translate(_LOWER)
        elif value.open_start and value.open_end:
            fits = wanted in text
        elif value.open_start:
            fits = text.endswith(wanted)
        else:
            fits = text.startswith(wanted) if value.open_end else text == wanted
        if fits:
            return True
    return False


def _occurs(word: str, flow: Flow) -> bool:
    anywhere = [flow.flow["reason"], *(text for text in flow.of("attribute", "text") if text is not None)]
    begins = str(flow.flow["flow_id"]).startswith(word.lower())
    return begins or any(word.translate(_LOWER) in str(text).translate(_LOWER) for text in anywhere)


def _flag(name: str, flow: Flow) -> bool:
    return FLAGS[name](flow)


def _overdue(flow: Flow) -> bool:
    deadline = flow.flow["deadline"]
    late = flow.flow["ended"] is None and isinstance(deadline, datetime) and deadline < NOW
    return late or any(isinstance(due, datetime) and due < NOW for due in flow.of("owed", "due"))


FLAGS: Mapping[str, Callable[[Flow], bool]] = {
    "stuck": lambda flow: bool(flow.of("escalation", "escalation_id")),
    "retrying": lambda flow: bool(flow.flow["retrying"]),
    "waiting": lambda flow: "PENDING" in flow.of("approval", "status"),
    "overdue": _overdue,
}


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
