"""What each kind of user may do on the broker, written by hand for one template, and the subjects to try it on.

The table is read beside docs/permissions.md. It must never be made by the code that makes the permissions.

The template: `desk` starts the flow type "refund" with shop.v1.Asked; `refunds` answers with shop.v1.Granted, which a
gate holds up, or shop.v1.Small; `ledger` answers shop.v1.Granted with shop.v1.Paid, and can undo that with nothing.
`analytics` reads flows of the type "refund".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import NamedTuple

from handrail.v1.template_pb2 import FlowTemplate, Step, Undo
from tests.support.accounts import asked_and_granted


class Rights(NamedTuple):
    """Patterns: `*` is one token, `>` at the end is one token or more."""

    publish: tuple[str, ...]
    """What arrives in the account with the streams if this user publishes it."""
    subscribe: tuple[str, ...]


def template() -> FlowTemplate:
    """The template that the table is about."""
    pay = Step(name="pay", agent="ledger", after=["shop.v1.Granted"], emits=["shop.v1.Paid"], undo=Undo())
    made = asked_and_granted(pay)
    made.steps[0].emits.append("shop.v1.Small")
    made.gates.add(name="large", on="shop.v1.Granted")
    return made


def _reads(stream: str) -> tuple[str, ...]:
    return (f"$JS.API.STREAM.MSG.GET.{stream}", *_reads_directly(stream))


def _reads_directly(stream: str) -> tuple[str, ...]:
    return (
        f"$JS.API.STREAM.INFO.{stream}",
        f"$JS.API.DIRECT.GET.{stream}",
        f"$JS.API.DIRECT.GET.{stream}.>",
    )


def _settles(durable: str) -> tuple[str, ...]:
    return (
        f"$JS.ACK.{durable}.*.*.*.*.*",
        f"$JS.ACK.*.*.{durable}.*.*.*.*.*",
        f"$JS.ACK.*.*.{durable}.*.*.*.*.*.*",
    )


def _agent(name: str) -> tuple[str, ...]:
    """What each agent may do that has a step, or starts flows."""
    return (
        f"flow.refund.*.divergence.{name}.*.handrail.v1.Divergence",
        f"quarantine.*.*.{name}.*.*",
        f"worker.{name}.*",
        "$JS.API.INFO",
        *(each for stream in ("FLOW", "TEMPLATE", "KEY", "WORKER") for each in _reads(stream)),
        f"$JS.API.CONSUMER.INFO.FLOW.agent-{name}",
        f"$JS.API.CONSUMER.MSG.NEXT.FLOW.agent-{name}",
        *_settles(f"FLOW.agent-{name}"),
    )


def _step(name: str) -> tuple[str, ...]:
    """What each agent may do that has a step."""
    return (
        f"flow.refund.*.event.{name}.*.handrail.v1.StepCompleted",
        f"flow.refund.*.failure.{name}.*.handrail.v1.StepFailed",
        f"flow.refund.*.failure.{name}.*.handrail.v1.StepNotStarted",
        f"flow.refund.*.progress.{name}.*.handrail.v1.StepProgress",
    )


_OF_THE_COORDINATOR = ("FLOW.decide", "FLOW.track", "FLOW.decide-beside", "FLOW.track-beside", "TIMER.due")

_HINTS = ("hint.halted",)

TABLE: Mapping[str, Rights] = {
    "desk": Rights(
        ("flow.refund.*.event.desk.*.shop.v1.Asked", "key.refund.*", *_agent("desk")),
        ("_INBOX_desk.>", *_HINTS),
    ),
    "refunds": Rights(
        (
            "flow.refund.*.proposal.refunds.*.shop.v1.Granted",
            "flow.refund.*.event.refunds.*.shop.v1.Small",
            *_step("refunds"),
            *_agent("refunds"),
        ),
        ("_INBOX_refunds.>", *_HINTS),
    ),
    "ledger": Rights(
        (
            "flow.refund.*.event.ledger.*.shop.v1.Paid",
            "flow.refund.*.undone.ledger.*.handrail.v1.StepCompleted",
            *_step("ledger"),
            *_agent("ledger"),
        ),
        ("_INBOX_ledger.>", *_HINTS),
    ),
    "analytics": Rights(
        (
            "$JS.API.INFO",
            "$JS.API.CONSUMER.INFO.FLOW.reader-analytics",
            "$JS.API.CONSUMER.MSG.NEXT.FLOW.reader-analytics",
            "$JS.API.CONSUMER.RESET.FLOW.reader-analytics",
        ),
        ("_INBOX_analytics.>",),
    ),
    "viewer": Rights(
        (
            "$JS.API.INFO",
            *(
                each
                for stream in ("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "WORKER")
                for each in _reads(stream)
            ),
            *(each for agent in ("desk", "refunds", "ledger") for each in _reads_directly(f"QUARANTINE_{agent}")),
            "$JS.API.CONSUMER.INFO.FLOW.*",
            "$JS.API.CONSUMER.INFO.TIMER.*",
        ),
        ("_INBOX_viewer.>",),
    ),
    "coordinator": Rights(
        (
            "flow.>",
            "timer.>",
            "template.>",
            "quarantine.>",
            "key.>",
            "absence.>",
            "delegation.>",
            "$KV.leases.>",
            "$JS.API.INFO",
            *(
                f"$JS.API.STREAM.CREATE.{stream}"
                for stream in (
                    *("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "ABSENCE", "AUDIT", "DELEGATION", "WORKER"),
                    *("KV_leases", "QUARANTINE_desk", "QUARANTINE_refunds", "QUARANTINE_ledger"),
                )
            ),
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.MSG.GET.*",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.PURGE.TIMER",
            "$JS.API.DIRECT.GET.*",
            "$JS.API.DIRECT.GET.*.>",
            "$JS.API.CONSUMER.CREATE.*.*",
            "$JS.API.CONSUMER.INFO.*.*",
            "$JS.API.CONSUMER.MSG.NEXT.*.*",
            *(each for durable in _OF_THE_COORDINATOR for each in _settles(durable)),
        ),
        ("_INBOX_coordinator.>", "own.>"),
    ),
    "setup": Rights(
        (
            "$JS.API.INFO",
            "$JS.API.STREAM.CREATE.*",
            "$JS.API.STREAM.UPDATE.*",
            "$JS.API.STREAM.INFO.*",
            "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.MSG.GET.TEMPLATE",
            "$JS.API.DIRECT.GET.TEMPLATE",
            "$JS.API.DIRECT.GET.TEMPLATE.>",
            "$JS.API.CONSUMER.CREATE.*.*",
            "$JS.API.CONSUMER.INFO.*.*",
        ),
        ("_INBOX_setup.>",),
    ),
    "retention": Rights(
        (
            "$JS.API.INFO",
            *(each for stream in ("FLOW", "TEMPLATE", "KEY", "AUDIT") for each in _reads(stream)),
            "$JS.API.CONSUMER.INFO.FLOW.*",
            "$JS.API.STREAM.PURGE.FLOW",
            "audit.>",
            "key.>",
            "quarantine.*.*.coordinator.*.*",
            "$JS.API.STREAM.MSG.GET.KV_leases",
            "$KV.leases.duty.retention",
        ),
        ("_INBOX_retention.>",),
    ),
    "visibility": Rights(
        (
            "$JS.API.INFO",
            *(each for stream in ("FLOW", "TEMPLATE") for each in _reads(stream)),
            "$JS.API.CONSUMER.INFO.FLOW.reader-visibility",
            "$JS.API.CONSUMER.MSG.NEXT.FLOW.reader-visibility",
            "$JS.API.CONSUMER.RESET.FLOW.reader-visibility",
        ),
        ("_INBOX_visibility.>",),
    ),
    # The system account is not the one with the streams: nothing arrives there.
    "monitor": Rights((), ("_INBOX_monitor.>",)),
}

WILDCARDS = ("*", ">")
_FLOW_TYPES = ("refund", "loan")
_KINDS = ("event", "proposal", "released", "failure", "undone", "progress", "divergence", "decision", "retry", "undo")
_AGENTS = ("desk", "refunds", "ledger", "coordinator")
_MESSAGES = (
    *("shop.v1.Asked", "shop.v1.Granted", "shop.v1.Small", "shop.v1.Paid", "other.v1.Thing"),
    *("handrail.v1.StepCompleted", "handrail.v1.StepFailed", "handrail.v1.StepNotStarted", "handrail.v1.StepProgress"),
    *("handrail.v1.Divergence", "handrail.v1.FlowHalted", "handrail.v1.FlowMigrated", "handrail.v1.ApprovalGiven"),
)
_FLOW_ID, _EVENT_ID = "a" * 32, "b" * 32
_STREAMS = (
    *("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "ABSENCE", "AUDIT", "DELEGATION", "WORKER"),
    *("KV_leases", "OTHER"),
    *("QUARANTINE_ledger", "QUARANTINE_other"),
)
_DURABLES = (
    "agent-ledger",
    "agent-refunds",
    "agent-desk",
    "reader-analytics",
    "reader-other",
    "decide",
    "track-beside",
    "due",
)
_OF_A_STREAM = (
    *("CREATE", "UPDATE", "INFO", "DELETE", "PURGE", "SNAPSHOT", "RESTORE", "MSG.GET", "MSG.DELETE", "PEER.REMOVE"),
    *("LEADER.STEPDOWN", "CANCEL_MOVE"),
)
_OF_A_CONSUMER = (
    *("CREATE", "DURABLE.CREATE", "INFO", "DELETE", "PAUSE", "RESET", "UNPIN", "MSG.NEXT", "LEADER.STEPDOWN"),
)


def subjects() -> Iterator[str]:
    """Every kind of subject, with own, foreign and wildcard tokens at each place, and cut short with `>`."""
    flow = ("flow",), _FLOW_TYPES, (_FLOW_ID,), _KINDS, _AGENTS, (_EVENT_ID,), _MESSAGES
    yield from _tried(*flow)
    yield from _tried(("seen",), _FLOW_TYPES, (_FLOW_ID,), ("event", "decision"), _AGENTS, (_EVENT_ID,), _MESSAGES[:4])
    yield from _tried(("quarantine",), ("refund", "-"), (_FLOW_ID,), (*_AGENTS, "-"), ("ledger", "-"), (_EVENT_ID,))
    yield from _tried(("worker",), _AGENTS, ("w1",))
    yield from _tried(("key", "timer", "due", "template", "delegation"), _FLOW_TYPES, (_FLOW_ID,))
    yield from _tried(("timer", "due"), _FLOW_TYPES, (_FLOW_ID,), ("deadline",))
    yield from _tried(("template",), ("refund",), ("version", "active"), ("1",))
    yield from _tried(("absence", "accounts.statz", "accounts"), ("1893456000000",))
    yield from ("audit.segment.1", "$KV.leases.duty.retention", "$KV.leases.duty.sweep")
    yield from ("accounts.statz", "$KV.leases.presence", "$KV.leases.flow.refund", "$KV.other.x", "nonsense")
    yield from _management()
    yield from _acknowledgements()
    users = (*TABLE, "admin", "sys", "other")
    yield from _tried([f"_INBOX_{user}" for user in users], ("x",))
    yield from _tried(
        ("_INBOX", "_R_", "$SYS.REQ.SERVER", "$SYS.REQ.ACCOUNT", "$SYS.ACCOUNT"), ("PING", "x"), ("VARZ",)
    )
    yield from _tried(("$JS.EVENT.ADVISORY", "$JS.EVENT.METRIC", "$JS.FC.FLOW", "$SRV"), ("PING", "x"))
    yield from ("*", ">", "flow.*", "$JS.*", "$JS.API.*", "$SYS.>", "$SYS.REQ.SERVER.PING")


def _management() -> Iterator[str]:
    """Every request of the JetStream API."""
    yield from ("$JS.API.INFO", "$JS.API.>", "$JS.API.ACCOUNT.PURGE.HANDRAIL", "$JS.API.META.LEADER.STEPDOWN")
    yield from ("$JS.API.SERVER.REMOVE", "$JS.API.STREAM.NAMES", "$JS.API.STREAM.LIST", "$JS.API.STREAM.TEMPLATE.NAMES")
    yield from _tried([f"$JS.API.STREAM.{verb}" for verb in _OF_A_STREAM], _STREAMS)
    yield from _tried(("$JS.API.DIRECT.GET",), _STREAMS)
    yield from _tried(("$JS.API.DIRECT.GET",), _STREAMS, ("flow", "timer"), ("refund",))
    yield from _tried([f"$JS.API.CONSUMER.{verb}" for verb in ("NAMES", "LIST", "CREATE")], _STREAMS)
    yield from _tried([f"$JS.API.CONSUMER.{verb}" for verb in _OF_A_CONSUMER], _STREAMS, _DURABLES)
    yield from _tried(("$JS.API.CONSUMER.CREATE",), _STREAMS, _DURABLES, ("flow",), ("refund",))


def _acknowledgements() -> Iterator[str]:
    """The subjects of answers to deliveries, in both forms, and too short and too long."""
    for stream, durable in product((*_STREAMS, "*"), (*_DURABLES, "*")):
        for number in range(4, 8):
            delivery = ".".join(["1"] * number)
            yield f"$JS.ACK.{stream}.{durable}.{delivery}"
            yield f"$JS.ACK._.HASH.{stream}.{durable}.{delivery}"
        yield f"$JS.ACK.{stream}.{durable}.>"
        yield f"$JS.ACK.agent-ledger.FLOW.{stream}.{durable}.1.1.1.1.1"


def _tried(*tokens: list[str] | tuple[str, ...]) -> Iterator[str]:
    """All combinations; with a wildcard in one place each; and cut short by `>` at each place."""
    for places in product(*tokens):
        yield ".".join(places)
    for index in range(1, len(tokens)):
        for before in product(*tokens[:index]):
            yield ".".join([*before, ">"])
        wild = [("*",) if place == index else choices for place, choices in enumerate(tokens)]
        for places in product(*wild):
            yield ".".join(places)


def matched(patterns: tuple[str, ...], subject: str) -> bool:
    """Whether a pattern matches a subject. What looks like a wildcard in the subject of a message is a plain token."""
    return any(_covers(pattern.split("."), subject.split("."), literal=True) for pattern in patterns)


def covered(patterns: tuple[str, ...], subject: str) -> bool:
    """Whether a pattern covers everything that a subscription to this subject may bring."""
    return any(_covers(pattern.split("."), subject.split(".")) for pattern in patterns)


def _covers(pattern: list[str], subject: list[str], *, literal: bool = False) -> bool:
    if not pattern or not subject:
        return pattern == subject
    if pattern[0] == ">":
        return True
    if subject[0] == ">" and not literal:
        return False
    return pattern[0] in ("*", subject[0]) and _covers(pattern[1:], subject[1:], literal=literal)
