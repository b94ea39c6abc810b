"""Subjects: this module alone builds and parses them.

flow.<flow_type>.<flow_id>.<kind>.<agent>.<event_id>.<message full name>   stream FLOW
timer.<flow_type>.<flow_id>.<timer>  →  due.<flow_type>.<flow_id>.<timer>  stream TIMER
template.<name>.<version>, template.<name>.active.<n>                      stream TEMPLATE
template.<name>.pending.<n>, template.<name>.withdrawn.<n>                 stream TEMPLATE
quarantine.<flow_type>.<flow_id>.<reporter>.<about>.<event_id>             streams QUARANTINE, QUARANTINE_<agent>
key.<flow_type>.<hash of the business key>                                 stream KEY
key.<flow_type>.<flow_id>.<sequence of its first event>                    stream KEY
delegation.<delegation_id>, delegation.<delegation_id>.end                  stream DELEGATION
"""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean, shortened
from handrail.v1.error_reason_pb2 import ErrorReason

COORDINATOR = "coordinator"
"""The agent token of the coordinator. Agents can't take this name."""

NO_AGENT = "-"
"""Stands for the agent where the message in quarantine is none of a known agent's."""

POLICY = "_policy"
"""Stands for the installation's policy where subjects of TEMPLATE have a template's name. No template has this name."""

NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
"""Flow types, agents, steps, gates and rules: one subject token each."""

IDENTIFIER = re.compile(r"[0-9a-f]{32}")
"""Flow ids and event ids."""

_MESSAGE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(?:\.[A-Za-z_][A-Za-z0-9_]*)*")
_ADDRESS = re.compile(
    rf"flow\.({NAME.pattern})\.({IDENTIFIER.pattern})\.([a-z]+)\.({NAME.pattern})\.({IDENTIFIER.pattern})"
    rf"\.({_MESSAGE.pattern})"
)
_TIMER = re.compile(r"[A-Za-z0-9_-]{1,256}")


class Kind(StrEnum):
    """The kind of a message in the FLOW stream; the fourth token of its subject."""

    EVENT = "event"
    PROPOSAL = "proposal"
    RELEASED = "released"
    FAILURE = "failure"
    UNDONE = "undone"
    PROGRESS = "progress"
    DIVERGENCE = "divergence"
    RETRY = "retry"
    UNDO = "undo"
    DECISION = "decision"


_KINDS = {kind.value: kind for kind in Kind}


class Address(NamedTuple):
    """The parts of a FLOW subject."""

    flow_type: str
    flow_id: str
    kind: Kind
    agent: str
    event_id: str
    message_type: str

    @property
    def subject(self) -> str:
        """The full subject."""
        return (
            f"flow.{self.flow_type}.{self.flow_id}.{self.kind.value}.{self.agent}.{self.event_id}.{self.message_type}"
        )


def parse(subject: str) -> Address:
    """Parses a FLOW subject. Raises WRONG_ADDRESS, which names the invalid token."""
    match = _ADDRESS.fullmatch(subject)
    if match:
        flow_type, flow_id, kind, agent, event_id, message_type = match.groups()
        if kind in _KINDS:
            return Address(flow_type, flow_id, _KINDS[kind], agent, event_id, message_type)
    raise _misaddressed(subject)


def _misaddressed(subject: str) -> HandrailError:
    tokens = subject.split(".", 6)
    if len(tokens) != 7 or tokens[0] != "flow":
        return _wrong(subject, "it is not flow.<type>.<id>.<kind>.<agent>.<event id>.<message>")
    _, flow_type, flow_id, kind, agent, event_id, message_type = tokens
    if kind not in _KINDS:
        return _wrong(subject, f'there is no kind "{_shown(kind)}"')
    for label, value in (("flow type", flow_type), ("agent", agent)):
        if not NAME.fullmatch(value):
            return _wrong(subject, f'the {label} "{_shown(value)}" is not lower-case letters, digits, - and _')
    for label, value in (("flow id", flow_id), ("event id", event_id)):
        if not IDENTIFIER.fullmatch(value):
            return _wrong(subject, f'the {label} "{_shown(value)}" is not 32 hex digits')
    return _wrong(subject, f'"{_shown(message_type)}" is not a message name')


def agent_of(subject: str) -> str:
    """Who published a message that a durable of the coordinator delivers, by its subject: an agent or COORDINATOR.

    `-` if the subject has no valid name there. The broker checks that agents publish under their own name. Timers are
    the coordinator's.
    """
    tokens = subject.split(".", 5)
    if tokens[0] != "flow":
        return COORDINATOR
    return tokens[4] if len(tokens) == 6 and NAME.fullmatch(tokens[4]) else "-"


def flow_filter(flow_type: str, flow_id: str) -> str:
    """The filter for a whole flow.

    Expectations must use exactly this string: on a replicated stream, two different filters that match the same
    messages do not exclude each other.
    """
    return f"flow.{flow_type}.{flow_id}.>"


def filter_for(subject: str) -> str:
    """A filter that matches a subject as it was read. A token that was not UTF-8 was read as U+FFFD, which would not
    match it: the filter has a wildcard in its place.
    """
    if is_text(subject):
        return subject
    return ".".join(token if is_text(token) else "*" for token in subject.split("."))


def is_text(subject: str) -> bool:
    """Whether the whole subject was UTF-8 on the wire."""
    return "\N{REPLACEMENT CHARACTER}" not in subject


def outcome_filter(flow_type: str, flow_id: str, agent: str, event_id: str) -> str:
    """The filter for one outcome, of any kind and type. With expectation 0, the stream stores only the first."""
    return f"flow.{flow_type}.{flow_id}.*.{agent}.{event_id}.>"


def timer_subject(flow_type: str, flow_id: str, timer: str) -> str:
    """The subject on which a timer is armed."""
    return f"timer.{flow_type}.{flow_id}.{_timer_token(timer)}"


def timer_filter(flow_type: str, flow_id: str) -> str:
    """The filter for the timers of a flow that are armed."""
    return f"timer.{flow_type}.{flow_id}.*"


def due_subject(flow_type: str, flow_id: str, timer: str) -> str:
    """The subject on which a timer arrives when it is due."""
    return f"due.{flow_type}.{flow_id}.{_timer_token(timer)}"


class Due(NamedTuple):
    """The parts of the subject of a timer that is due."""

    flow_type: str
    flow_id: str
    timer: str


def parse_due(subject: str) -> Due:
    """Parses a `due` subject. Raises WRONG_ADDRESS if it is not one."""
    tokens = subject.split(".")
    if len(tokens) != 4 or tokens[0] != "due" or not IDENTIFIER.fullmatch(tokens[2]):
        raise _wrong(subject, "it is not due.<type>.<id>.<timer>")
    _require_name(subject, "flow type", tokens[1])
    return Due(tokens[1], tokens[2], tokens[3])


def template_subject(name: str, version: int) -> str:
    """The subject under which a version of a template is stored."""
    return f"template.{name}.{version}"


def activation_subject(name: str, number: int) -> str:
    """The subject of the n-th activation of a template, counted from 1."""
    return f"template.{name}.active.{number}"


def pending_subject(name: str, number: int) -> str:
    """The subject of the n-th act on a template that needs two persons, counted from 1."""
    return f"template.{name}.pending.{number}"


def withdrawn_subject(name: str, number: int) -> str:
    """The subject under which the n-th act on a template is withdrawn."""
    return f"template.{name}.withdrawn.{number}"


def quarantine_subject(flow_type: str, flow_id: str, reporter: str, about: str, event_id: str) -> str:
    """The subject under which `reporter` quarantines a message of the agent `about`; values that are not valid tokens
    become `-`.
    """
    tokens = (_token(each) for each in (flow_type, flow_id, reporter, about, event_id))
    return f"quarantine.{'.'.join(tokens)}"


class Kept(NamedTuple):
    """The parts of the subject of a quarantined message. The broker checked the reporter, and nothing else."""

    flow_type: str
    flow_id: str
    reporter: str
    about: str
    event_id: str


def parse_quarantine(subject: str) -> Kept:
    """Parses the subject of a quarantined message; missing parts are empty.

    Subjects of earlier releases have five tokens, and don't say whose message it is.
    """
    tokens = subject.split(".")
    if len(tokens) == 5:
        tokens.insert(4, "")
    _, flow_type, flow_id, reporter, about, event_id = (tokens + [""] * 6)[:6]
    return Kept(flow_type, flow_id, reporter, about, event_id)


def key_subject(flow_type: str, key_hash: str) -> str:
    """The subject under which the use of a business key is recorded."""
    return f"key.{flow_type}.{key_hash}"


def purged_subject(flow_type: str, flow_id: str, first_sequence: int) -> str:
    """The subject under which it is recorded that a flow began at this sequence, and is purged from FLOW."""
    return f"key.{flow_type}.{flow_id}.{first_sequence}"


def purged_filter(flow_type: str, flow_id: str) -> str:
    """The filter for such records of a flow; the type may be `*`."""
    return f"key.{flow_type}.{flow_id}.*"


def delegation_subject(delegation_id: str) -> str:
    """The subject under which a delegation is stored."""
    return f"delegation.{delegation_id}"


def delegation_end_subject(delegation_id: str) -> str:
    """The subject under which the early end of a delegation is stored."""
    return f"delegation.{delegation_id}.end"


def _token(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]{1,64}", text) else "-"


def _timer_token(timer: str) -> str:
    if not _TIMER.fullmatch(timer):
        raise _wrong(timer, "a timer's name is one token of letters, digits, - and _")
    return timer


def _require_name(subject: str, label: str, value: str) -> None:
    if not NAME.fullmatch(value):
        raise _wrong(subject, f'the {label} "{_shown(value)}" is not lower-case letters, digits, - and _')


def _shown(text: str) -> str:
    """A token as it may be printed."""
    return shortened(clean(text), 80)


def _wrong(subject: str, why: str) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_WRONG_ADDRESS, f'subject "{_shown(subject)}": {why}', subject=_shown(subject)
    )
