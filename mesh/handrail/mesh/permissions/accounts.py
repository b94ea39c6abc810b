"""The broker's accounts, and what passes between them.

Permissions on subjects alone don't hold: a server that answers a request publishes the answer to whatever reply
subject the request names, and asks no permission for it. In one account, an agent that may read the stream could have
the broker itself store its proposal under the `released` subject (seen with nats-server 2.15.1). So there are three:

    HANDRAIL   the streams, the coordinator, and `admin` who sets up and repairs by hand
    AGENTS     the agents; what passes into HANDRAIL are the kinds that agents publish, reading, and their own durables
    VIEWERS    reads, and nothing else

An answer stays in the account of whoever asked. `docs/permissions.md` has the whole picture.
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
"""What agents listen to, to know which flows to look at before they do anything: those that were halted, or moved to
another version."""


class Answers(NamedTuple):
    """How a service answers across accounts: once, or with many messages, each within `threshold` of the last."""

    many: bool = False
    threshold: str = ""


_ONCE = Answers()
_READ = Answers(many=True, threshold="10s")
_PULL = Answers(many=True, threshold="5m")


def acknowledging(stream: str, durable: str) -> tuple[str, ...]:
    """Where the deliveries of a durable are answered, `*` for any: that stream and durable, and no other.

    Each pattern has as many tokens as the broker writes. With fewer, `$JS.ACK.*.*.FLOW.agent-a.>` for one, it would
    match the deliveries of every other durable too: their stream and durable stand where this one has wildcards, and
    nothing keeps the rest from being made to fit. The longer forms name domain and account, and perhaps end in a
    random token (the server's feature js_ack_fc_v2).
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

# All that passes from an account into the one with the streams. No user's permissions, however they were made, reach
# beyond it: not to `released`, `decision`, `retry` and `undo`, nor to timers and templates.
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

# What an account hears of the one with the streams. Viewers hear nothing: what came out of another account is not
# handed on to a third (seen with nats-server 2.15.1), so that they would miss all that agents say.
SUBSCRIPTIONS: Mapping[str, tuple[str, ...]] = {AGENTS: HINTS, VIEWERS: ()}


def exports() -> list[dict[str, object]]:
    """What the account with the streams offers to the others."""
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
    """What an account takes of that."""
    services = [("service", subject) for subject in SERVICES[account]]
    taken = [*services, *(("stream", subject) for subject in SUBSCRIPTIONS[account])]
    return [{kind: {"account": HANDRAIL, "subject": subject}} for kind, subject in taken]
