"""The broker's accounts, and the subjects exchanged between them.

Permissions on subjects are not enough: a server publishes the answer to a request on any reply subject that the request
names, without checking permissions. In a single account, an agent that may read the stream could make the broker itself
store its proposal under the `released` subject, and slip answers into another agent's inbox (both seen with nats-server
2.15.1). An answer stays in the account of the requester. And connections and subscriptions can be limited for an
account only. So everybody but the administrator has an account apart from the streams and, as long as there are enough,
of its own:

    HANDRAIL      the streams, and who repairs them by hand
    COORDINATOR   run time: what happened, timers, templates; creates what is missing, changes and ends no stream
    SETUP         creates and changes streams and durables, and publishes nothing
    RETENTION     reads, purges FLOW, and records it
    VISIBILITY    reads, and follows FLOW
    AGENTS_<n>    one agent each; into HANDRAIL pass only the kinds that agents publish, reads, and their own durables
    READERS_<n>   one reader each; they pull from their own durables
    VIEWERS       only reads
    SYS           the servers themselves: health, statistics, reload

The accounts and what passes between them never change, and don't depend on templates: a cluster loses the imports of
an account that a reload introduces (github.com/nats-io/nats-server/issues/8560; a single 2.15.1 connects them at the
second reload). So there is a number of accounts from the start, and agents and readers take places in them. See
`docs/permissions.md`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from itertools import product

from handrail.mesh.permissions.group import STREAMS, Group, Limits
from handrail.mesh.permissions.names import VISIBILITY, reader_durable
from handrail.mesh.permissions.services import ONCE, PULL, READ, Answers, acknowledging, consuming, reading
from handrail.mesh.wire.subjects import COORDINATOR, Kind

HINT = "hint.halted"
"""The subject on which agents hear of halted and migrated flows, which they read before they do anything for them. A
message holds the ids of such flows, one a line.

It has a subject of its own: a server hands a message to the account of every agent, for each message on this subject.
As part of the decisions' own publishes, with their replies, that took 800 µs of the server's CPU for each halted flow.

They come from the coordinator's account: the server does not forward a message of one account through a second to a
third (seen with nats-server 2.15.1), so in the streams' account nobody else would hear them. They come as a service
that the agents' accounts offer, not as a stream that they import: nats-server 2.15.1 crashes if somebody subscribes to
what an account imports as a stream at the moment of a reload.
"""

RETENTION_LEASE = "duty.retention"
"""The lease of the one process that purges."""

READ_BY_AGENTS = reading("FLOW", "TEMPLATE", "KEY", "WORKER")

READ_BY_VIEWERS = ("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "WORKER")
"""The streams that viewers read, besides the quarantine of each agent."""

SETTLED_BY_RUN_TIME = (
    *(("FLOW", durable) for durable in ("decide", "track", "decide-beside", "track-beside")),
    ("TIMER", "due"),
)
"""The coordinator's durables, and the consumers beside them, by stream."""

_AGENT_KINDS = (Kind.EVENT, Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.PROGRESS, Kind.DIVERGENCE)

HANDRAIL = Group(STREAMS)
"""The account with the streams. Nothing passes into it from itself."""

SYSTEM = Group("SYS")
"""The system account. Nothing passes between it and others."""

RUN_TIME = Group(
    name="COORDINATOR",
    services={
        **dict.fromkeys(
            ("flow.>", "timer.>", "template.>", "quarantine.>", "key.>", "absence.>", "delegation.>", "$KV.leases.>"),
            ONCE,
        ),
        "$JS.API.INFO": ONCE,
        # Any stream, because each agent has a quarantine. The coordinator's permissions name the streams: whoever may
        # create one may have the broker publish its messages again, as requests.
        "$JS.API.STREAM.CREATE.*": ONCE,
        "$JS.API.STREAM.INFO.*": ONCE,
        "$JS.API.STREAM.MSG.GET.*": ONCE,
        "$JS.API.STREAM.NAMES": ONCE,
        "$JS.API.STREAM.PURGE.TIMER": ONCE,
        "$JS.API.DIRECT.GET.*": READ,
        "$JS.API.DIRECT.GET.*.>": READ,
        "$JS.API.CONSUMER.CREATE.*.*": ONCE,
        "$JS.API.CONSUMER.INFO.*.*": ONCE,
        "$JS.API.CONSUMER.MSG.NEXT.*.*": PULL,
        **{each: ONCE for stream, durable in SETTLED_BY_RUN_TIME for each in acknowledging(stream, durable)},
    },
)

SETTING_UP = Group(
    name="SETUP",
    services={
        "$JS.API.INFO": ONCE,
        "$JS.API.STREAM.CREATE.*": ONCE,
        "$JS.API.STREAM.UPDATE.*": ONCE,
        "$JS.API.STREAM.INFO.*": ONCE,
        "$JS.API.STREAM.NAMES": ONCE,
        "$JS.API.STREAM.MSG.GET.TEMPLATE": ONCE,
        "$JS.API.DIRECT.GET.TEMPLATE": READ,
        "$JS.API.DIRECT.GET.TEMPLATE.>": READ,
        "$JS.API.CONSUMER.CREATE.*.*": ONCE,
        "$JS.API.CONSUMER.INFO.*.*": ONCE,
    },
)

RETAINING = Group(
    name="RETENTION",
    services={
        **reading("FLOW", "TEMPLATE", "KEY", "AUDIT"),
        "$JS.API.CONSUMER.INFO.FLOW.*": ONCE,
        "$JS.API.STREAM.PURGE.FLOW": ONCE,
        "audit.>": ONCE,
        # The key of a flow stays in use after its messages are gone.
        "key.>": ONCE,
        # What came after a purge, as the coordinator reports it.
        f"quarantine.*.*.{COORDINATOR}.*.*": ONCE,
        "$JS.API.STREAM.MSG.GET.KV_leases": ONCE,
        f"$KV.leases.{RETENTION_LEASE}": ONCE,
    },
)

FOLLOWING = Group(
    name="VISIBILITY",
    services={
        **reading("FLOW", "TEMPLATE"),
        **consuming("FLOW", reader_durable(VISIBILITY)),
        f"$JS.API.CONSUMER.RESET.FLOW.{reader_durable(VISIBILITY)}": ONCE,
    },
)

AGENTS = Group(
    name="AGENTS",
    number=64,
    services={
        **{f"flow.*.*.{kind}.>": ONCE for kind in _AGENT_KINDS},
        "quarantine.>": ONCE,
        "key.>": ONCE,
        "worker.>": ONCE,
        **READ_BY_AGENTS,
        **consuming("FLOW", "*"),
        **dict.fromkeys(acknowledging("FLOW", "*"), ONCE),
    },
    told=(HINT,),
    # A worker has one connection with four subscriptions; a durable does not serve more workers well.
    limits=Limits(connections=128, subscriptions=2048),
)

READERS = Group(
    name="READERS",
    number=16,
    services={"$JS.API.INFO": ONCE, **consuming("FLOW", "*"), "$JS.API.CONSUMER.RESET.FLOW.*": ONCE},
    # Readers may be many small programs, each with subscriptions of its own.
    limits=Limits(connections=64, subscriptions=4096),
)

VIEWERS = Group(
    name="VIEWERS",
    services={
        "$JS.API.INFO": ONCE,
        **{f"$JS.API.STREAM.MSG.GET.{stream}": ONCE for stream in READ_BY_VIEWERS},
        # Any stream, because each agent has a quarantine of its own, and accounts don't depend on templates. The
        # viewer's permissions name the streams.
        "$JS.API.STREAM.INFO.*": ONCE,
        "$JS.API.DIRECT.GET.*": READ,
        "$JS.API.DIRECT.GET.*.>": READ,
        "$JS.API.CONSUMER.INFO.FLOW.*": ONCE,
        "$JS.API.CONSUMER.INFO.TIMER.*": ONCE,
    },
    limits=Limits(connections=64, subscriptions=4096),
)
"""Viewers hear nothing: they would miss what agents publish, as the coordinator does."""

_OUTSIDE = (RUN_TIME, SETTING_UP, RETAINING, FOLLOWING, AGENTS, READERS, VIEWERS)


def configuration() -> dict[str, dict[str, object]]:
    """The configuration of all accounts by name, without their users."""
    found: dict[str, dict[str, object]] = {
        HANDRAIL.name: {"jetstream": "enabled", "exports": [*_services()]},
        SYSTEM.name: {},
    }
    for group in _OUTSIDE:
        offered = {"exports": [_service(subject, ONCE, RUN_TIME.accounts) for subject in group.told]}
        for account in group.accounts:
            found[account] = {**_limits(group), **(offered if group.told else {}), "imports": [*_imports(group)]}
    found[RUN_TIME.name] |= {"imports": [*_imports(RUN_TIME), *_telling()]}
    return found


def places(names: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """The place of each name in its group: the one that is known, or else the first that nobody has."""
    taken = frozenset(known.values())
    free = (place for place in itertools.count() if place not in taken)
    return {name: known[name] if name in known else next(free) for name in sorted(names)}


def _services() -> Iterator[Mapping[str, object]]:
    """What the account with the streams does for each of the others."""
    services: dict[str, tuple[Answers, list[str]]] = {}
    for group in _OUTSIDE:
        for subject, answers in group.services.items():
            services.setdefault(subject, (answers, []))[1].extend(group.accounts)
    return (_service(subject, answers, accounts) for subject, (answers, accounts) in services.items())


def _telling() -> Iterator[Mapping[str, object]]:
    """What the coordinator's account imports to tell the users of others: one message reaches all of them."""
    for group in _OUTSIDE:
        for account, subject in product(group.accounts, group.told):
            yield {"service": {"account": account, "subject": subject}}


def _imports(group: Group) -> Iterator[Mapping[str, object]]:
    return ({"service": {"account": HANDRAIL.name, "subject": subject}} for subject in group.services)


def _limits(group: Group) -> dict[str, object]:
    given = group.limits
    return {} if given is None else {"limits": {f"max_{name}": value for name, value in given._asdict().items()}}


def _service(subject: str, answers: Answers, accounts: Iterable[str]) -> Mapping[str, object]:
    many = {"response_type": "stream", "threshold": answers.threshold} if answers.many else {}
    return {"service": subject, "accounts": [*accounts], **many}
