"""The broker's accounts, and the subjects exchanged between them.

Permissions on subjects are not enough: a server publishes the answer to a request on any reply subject that the request
names, without checking permissions. In a single account, an agent that may read the stream could make the broker itself
store its proposal under the `released` subject, and slip answers into another agent's inbox (both seen with nats-server
2.15.1). An answer stays in the account of the requester. And connections and subscriptions can be limited for an
account only. So whoever is not trusted has an account apart from the streams and, as long as there are enough, of its
own:

    HANDRAIL      the streams, the coordinator, and those who set up, retain and repair
    AGENTS_<n>    one agent each; into HANDRAIL pass only the kinds that agents publish, reads, and their own durables
    READERS_<n>   one reader each; they hear what was stored in FLOW, and pull from their own durables
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
from dataclasses import dataclass, field
from typing import NamedTuple

from handrail.mesh.permissions.services import ONCE, READ, Answers, acknowledging, consuming, reading
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import FlowHalted, FlowMigrated

HINTS = tuple(
    f"flow.*.*.{Kind.DECISION}.{COORDINATOR}.*.{decision.DESCRIPTOR.full_name}"
    for decision in (FlowHalted, FlowMigrated)
)
"""Subjects that agents subscribe to. They name halted and migrated flows, which agents read before they do anything."""

READ_BY_AGENTS = reading("FLOW", "TEMPLATE", "KEY", "WORKER")

READ_BY_VIEWERS = ("FLOW", "TIMER", "TEMPLATE", "QUARANTINE", "KEY", "WORKER")
"""The streams that viewers read, besides the quarantine of each agent."""

STATISTICS = "accounts.statz"
"""The coordinator asks here what each account published, so by place (AGENTS_1, AGENTS_2, …) and not by agent; the
system account answers."""

SEEN = "seen"
"""The first token of the subjects under which the broker publishes again what it stored in FLOW, for readers."""

_SYSTEM_STATISTICS = "$SYS.REQ.ACCOUNT.PING.STATZ"
_AGENT_KINDS = (Kind.EVENT, Kind.PROPOSAL, Kind.FAILURE, Kind.UNDONE, Kind.PROGRESS, Kind.DIVERGENCE)


class Limits(NamedTuple):
    """What the users of one account may use together; the payload is in bytes."""

    connections: int
    subscriptions: int
    payload: int = 1 << 20


@dataclass(frozen=True, slots=True)
class Group:
    """A number of equal accounts, and everything that passes between each and the one with the streams.

    User permissions can't exceed it, even if they are wrong: neither to `released`, `decision`, `retry` and `undo`, nor
    to timers and templates.
    """

    name: str
    number: int = 1
    services: Mapping[str, Answers] = field(default_factory=dict)
    """Subjects on which its users may ask or publish."""
    heard: tuple[str, ...] = ()
    """Subjects that its users may receive."""
    limits: Limits | None = None

    @property
    def accounts(self) -> tuple[str, ...]:
        """The names of its accounts, in the order of their places."""
        return (self.name,) if self.number == 1 else tuple(f"{self.name}_{n}" for n in range(1, self.number + 1))

    def account(self, place: int) -> str:
        """The account at a place, counted from 0. Beyond the last, places share accounts."""
        return self.accounts[place % self.number]


HANDRAIL = Group("HANDRAIL")
"""The account with the streams. Nothing passes into it from itself."""

SYSTEM = Group("SYS")
"""The system account. The one with the streams takes statistics from it."""

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
    heard=HINTS,
    # A worker has one connection with four subscriptions; a durable does not serve more workers well.
    limits=Limits(connections=128, subscriptions=2048),
)

READERS = Group(
    name="READERS",
    number=16,
    services={"$JS.API.INFO": ONCE, **consuming("FLOW", "*"), "$JS.API.CONSUMER.RESET.FLOW.*": ONCE},
    heard=(f"{SEEN}.>",),
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
"""Viewers hear nothing: the server does not forward messages of one account through a second to a third (seen with
nats-server 2.15.1), so they would miss those of the agents."""

_OUTSIDE = (AGENTS, READERS, VIEWERS)


def configuration() -> dict[str, dict[str, object]]:
    """The configuration of all accounts by name, without their users."""
    found: dict[str, dict[str, object]] = {
        HANDRAIL.name: {
            "jetstream": "enabled",
            "exports": [*_exports()],
            "imports": [{"service": {"account": SYSTEM.name, "subject": _SYSTEM_STATISTICS}, "to": STATISTICS}],
        },
        SYSTEM.name: {"exports": [_service(_SYSTEM_STATISTICS, READ, HANDRAIL.accounts)]},
    }
    for group in _OUTSIDE:
        for account in group.accounts:
            found[account] = {**_limits(group), "imports": [*_imports(group)]}
    return found


def places(names: Iterable[str], known: Mapping[str, int]) -> dict[str, int]:
    """The place of each name in its group: the one that is known, or else the first that nobody has."""
    taken = frozenset(known.values())
    free = (place for place in itertools.count() if place not in taken)
    return {name: known[name] if name in known else next(free) for name in sorted(names)}


def _exports() -> Iterator[dict[str, object]]:
    """What the account with the streams offers each of the others."""
    services: dict[str, tuple[Answers, list[str]]] = {}
    heard: dict[str, list[str]] = {}
    for group in _OUTSIDE:
        for subject, answers in group.services.items():
            services.setdefault(subject, (answers, []))[1].extend(group.accounts)
        for subject in group.heard:
            heard.setdefault(subject, []).extend(group.accounts)
    for subject, (answers, accounts) in services.items():
        yield _service(subject, answers, accounts)
    for subject, accounts in heard.items():
        yield {"stream": subject, "accounts": accounts}


def _imports(group: Group) -> Iterator[dict[str, object]]:
    taken = [*(("service", each) for each in group.services), *(("stream", each) for each in group.heard)]
    return ({kind: {"account": HANDRAIL.name, "subject": subject}} for kind, subject in taken)


def _limits(group: Group) -> dict[str, object]:
    given = group.limits
    return {} if given is None else {"limits": {f"max_{name}": value for name, value in given._asdict().items()}}


def _service(subject: str, answers: Answers, accounts: Iterable[str]) -> dict[str, object]:
    many = {"response_type": "stream", "threshold": answers.threshold} if answers.many else {}
    return {"service": subject, "accounts": [*accounts], **many}
