"""The broker's accounts, and the subjects exchanged between them.

Permissions on subjects are not enough: a server publishes the answer to a request on any reply subject that the request
names, without checking permissions. In a single account, an agent that may read the stream could make the broker itself
store its proposal under the `released` subject (seen with nats-server 2.15.1). So there are three accounts:

    HANDRAIL   the streams, the coordinator, and `admin` who sets up and repairs by hand
    AGENTS     the agents; into HANDRAIL pass only the kinds that agents publish, reads, and their own durables
    VIEWERS    only reads

An answer stays in the account of the requester. See `docs/permissions.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import FlowHalted, FlowMigrated

HANDRAIL, AGENTS, VIEWERS = "HANDRAIL", "AGENTS", "VIEWERS"

HINTS = tuple(
    f"flow.*.*.{Kind.DECISION}.{COORDINATOR}.*.{decision.DESCRIPTOR.full_name}"
    for decision in (FlowHalted, FlowMigrated)
)
"""Subjects that agents subscribe to. They name halted and migrated flows, which agents read before they do anything."""


class Answers(NamedTuple):
    """How a service answers across accounts: once, or with many messages, each within `threshold` of the previous."""

    many: bool = False
    threshold: str = ""


_ONCE = Answers()
_READ = Answers(many=True, threshold="10s")
_PULL = Answers(many=True, threshold="5m")


def acknowledging(stream: str, durable: str) -> tuple[str, ...]:
    """The subjects for answers to the deliveries of one durable of one stream (`*`: any), and of no other.

    Each pattern has exactly as many tokens as the broker writes. A shorter one, such as `$JS.ACK.*.*.FLOW.agent-a.>`,
    would match deliveries of all other durables too: its wildcards cover their stream and durable, and the remaining
    tokens can be forged. The longer forms name domain and account, and may end in a random token (the server's feature
    js_ack_fc_v2).
    """
    delivery = "*.*.*.*.*"
    return (
        f"$JS.ACK.{stream}.{durable}.{delivery}",
        f"$JS.ACK.*.*.{stream}.{durable}.{delivery}",
        f"$JS.ACK.*.*.{stream}.{durable}.{delivery}.*",
    )


def reading(*streams: str) -> dict[str, Answers]:
    """The services that read these streams."""
    services = {"$JS.API.INFO": _ONCE}
    for stream in streams:
        services[f"$JS.API.STREAM.INFO.{stream}"] = _ONCE
        services[f"$JS.API.STREAM.MSG.GET.{stream}"] = _ONCE
        services[f"$JS.API.DIRECT.GET.{stream}"] = _READ
        services[f"$JS.API.DIRECT.GET.{stream}.>"] = _READ
    return services


READ_BY_AGENTS = reading("FLOW", "TEMPLATE", "KEY", "WORKER")
_AGENT_KINDS = (Kind.EVENT, Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.PROGRESS, Kind.DIVERGENCE)

# Everything that passes from an account into the one with the streams. User permissions can't exceed it, even if they
# are wrong: neither to `released`, `decision`, `retry` and `undo`, nor to timers and templates.
SERVICES: Mapping[str, Mapping[str, Answers]] = {
    AGENTS: {
        **{f"flow.*.*.{kind}.>": _ONCE for kind in _AGENT_KINDS},
        "quarantine.>": _ONCE,
        "key.>": _ONCE,
        "worker.>": _ONCE,
        **READ_BY_AGENTS,
        "$JS.API.CONSUMER.INFO.FLOW.*": _ONCE,
        "$JS.API.CONSUMER.MSG.NEXT.FLOW.*": _PULL,
        **dict.fromkeys(acknowledging("FLOW", "*"), _ONCE),
    },
    VIEWERS: {
        **reading("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "WORKER"),
        "$JS.API.CONSUMER.INFO.FLOW.*": _ONCE,
        "$JS.API.CONSUMER.INFO.TIMER.*": _ONCE,
    },
}

# What an account receives from the one with the streams. Viewers receive nothing: the server does not forward messages
# of one account through a second to a third (seen with nats-server 2.15.1), so they would miss those of the agents.
SUBSCRIPTIONS: Mapping[str, tuple[str, ...]] = {AGENTS: HINTS, VIEWERS: ()}


def exports() -> list[dict[str, object]]:
    """The exports of the account with the streams."""
    services: dict[str, tuple[Answers, list[str]]] = {}
    for account, subjects in SERVICES.items():
        for subject, answers in subjects.items():
            services.setdefault(subject, (answers, []))[1].append(account)
    result: list[dict[str, object]] = []
    for subject, (answers, accounts) in services.items():
        many = {"response_type": "stream", "threshold": answers.threshold} if answers.many else {}
        result.append({"service": subject, "accounts": accounts, **many})
    for account, heard in SUBSCRIPTIONS.items():
        result += [{"stream": subject, "accounts": [account]} for subject in heard]
    return result


def imports(account: str) -> list[dict[str, object]]:
    """The imports of an account from the one with the streams."""
    services = [("service", subject) for subject in SERVICES[account]]
    taken = [*services, *(("stream", subject) for subject in SUBSCRIPTIONS[account])]
    return [{kind: {"account": HANDRAIL, "subject": subject}} for kind, subject in taken]
