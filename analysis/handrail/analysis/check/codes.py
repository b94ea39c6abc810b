"""The codes of the flow type-check. A code never changes its meaning; a new kind of finding gets a new code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from handrail.v1.template_pb2 import Finding, Severity

_ERROR = Severity.SEVERITY_ERROR
_WARNING = Severity.SEVERITY_WARNING


class Code(NamedTuple):
    """A kind of finding: its title, its severity, and the general remedy."""

    title: str
    severity: Severity.ValueType
    remedy: str


CODES: Mapping[str, Code] = {
    "HR001": Code("broken rule of a template", _ERROR, "correct the field"),
    "HR002": Code("unknown message type", _ERROR, "correct the name, or add its file to the contracts"),
    "HR003": Code("message type of Handrail's own", _ERROR, "use a message of your own contracts"),
    "HR004": Code("name used twice", _ERROR, "rename one of them"),
    "HR005": Code("reserved agent name", _ERROR, "give the agent another name"),
    "HR006": Code("contract with rules that can't be applied", _ERROR, "correct the rules in the message's contract"),
    "HR007": Code("step that can't be reached", _ERROR, "let a reachable step emit what it waits for, or remove it"),
    "HR008": Code("end that can't be reached", _ERROR, "let a reachable step emit it, or complete with another event"),
    "HR009": Code("event that nobody emits", _ERROR, "let a step emit it, or stop waiting for it"),
    "HR010": Code(
        "event that nobody waits for", _WARNING, "let a step wait for it, or remove it, unless it is for others to read"
    ),
    "HR011": Code(
        "dead end",
        _ERROR,
        "let a step that leads to the end wait for it, or name it in completes_with if the flow may end with it",
    ),
    "HR012": Code(
        "refusal that leads nowhere",
        _ERROR,
        "let a step wait for handrail.v1.ApprovalRefused, or set on_reject to COMPENSATE or FAIL",
    ),
    "HR013": Code(
        "cycle without a bound",
        _WARNING,
        "add a rule on an event of the cycle that limits its flow.counts, or break it",
    ),
    "HR014": Code(
        "event that both begins a flow and is emitted in it", _WARNING, "use a type of its own for the beginning"
    ),
    "HR015": Code("effect without undo", _ERROR, "say how it is undone in `undo`, or declare it IRREVERSIBLE"),
    "HR016": Code("undo without effect", _ERROR, "declare the effect UNDOABLE, or remove `undo`"),
    "HR017": Code(
        "irreversible effect neither last nor gated",
        _WARNING,
        "put a gate before it, move it to the end, or make it undoable",
    ),
    "HR018": Code("join input named twice", _ERROR, "name it once, with a count"),
    "HR019": Code(
        "join of several without a count", _ERROR, "say how many in `count`; `count: 1` if never more than one comes"
    ),
    "HR020": Code(
        "count that can't be evaluated",
        _ERROR,
        "write a number from 1 to 900, or an expression over latest['…'] of an int",
    ),
    "HR021": Code("join that can starve", _ERROR, "take the count from an event that every input follows from"),
    "HR022": Code(
        "gate on the beginning of a flow", _ERROR, "gate an event that a step emits: nothing proposes the first one"
    ),
    "HR023": Code("gate without expiry", _ERROR, "set expires_after, or on_expiry: WAIT if people may take forever"),
    "HR024": Code(
        "expiry that never comes", _WARNING, "remove expires_after, or set on_expiry to something other than WAIT"
    ),
    "HR025": Code("requester field that is not text", _ERROR, "name a single string field of the proposal"),
    "HR026": Code("requester field without use", _WARNING, "set not_the_requester, or remove requester_field"),
    "HR027": Code("condition that does not type-check", _ERROR, "correct the expression"),
    "HR028": Code("time longer than the flow may take", _WARNING, "shorten it, or raise the deadline of the flow"),
    "HR029": Code("too many expressions", _ERROR, "let rules look at fewer events, or split the flow"),
    "HR030": Code("not a template", _ERROR, "correct the file at this place"),
    "HR031": Code(
        "input that may never come",
        _WARNING,
        "let every way lead to it, or wait in `after` for each by itself; say `count: 1` if it always comes",
    ),
    "HR032": Code("more messages than a flow can hold", _ERROR, "join fewer messages, or split the flow"),
    "HR033": Code(
        "no bound on the messages of a flow",
        _WARNING,
        "count by a field whose contract has a rule like `uint32.lte`, or split the flow",
    ),
    "HR034": Code(
        "number in a condition that may be infinite",
        _WARNING,
        "give the field a rule `double.finite: true`; without it NaN and infinity reach the condition",
    ),
    "HR035": Code(
        "join of more messages than can come",
        _ERROR,
        "wait for fewer, or raise `max_outputs` of the step that emits them",
    ),
    "HR036": Code(
        "gate that ignores pending proposals",
        _WARNING,
        "add `flow.proposals['…']` of the type to its `flow.facts['…']` in the condition",
    ),
    "HR037": Code(
        "condition that may cost too much",
        _WARNING,
        "bound what it reads by rules like `repeated.max_items` and `string.max_len`, or let it read less",
    ),
    "HR038": Code(
        "search field that can't be found",
        _ERROR,
        "name a single field of an event of the flow, with one kind of value",
    ),
    "HR039": Code(
        "external step with what only a worker does",
        _ERROR,
        "let a worker run the step, or leave this out; a step of a worker can undo it instead",
    ),
}
"""All codes, with title, severity and remedy."""


def finding(code: str, path: str, text: str, remedy: str = "") -> Finding:
    """A finding of this code at this place. The default remedy is that of the code."""
    known = CODES[code]
    return Finding(code=code, severity=known.severity, path=path, text=text, remedy=remedy or known.remedy)
