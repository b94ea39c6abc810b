"""The streams: their names and the configuration that each must have.

- FLOW: the messages of all flows; subjects are write-once, nothing is changed or deleted; what the archive holds may be
  purged
- TIMER: message schedules, and the messages they become when due; a separate stream, because anybody who may publish to
  a stream with schedules can wipe it
- TEMPLATE: template versions and activations
- QUARANTINE_<agent>: messages that break their contract: those that the agent reports, and those of the agent that the
  coordinator reports; new ones replace the oldest
- QUARANTINE: those that the coordinator reports and that come from no known agent
- KEY: business keys in use; outlives the flow's events
- AUDIT: what was archived before it was purged, and what was erased
- ABSENCE: times without a running coordinator; new ones replace the oldest
- KV_leases: the leases and the presence of coordinators, a key-value bucket
- DELEGATION: roles that people passed on for a time
- WORKER: the announcements of live workers; in memory, for half a minute
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from handrail.mesh.instants import in_nanoseconds
from handrail.mesh.wire.subjects import COORDINATOR, NAME, NO_AGENT

FLOW = "FLOW"
TIMER = "TIMER"
TEMPLATE = "TEMPLATE"
QUARANTINE = "QUARANTINE"
KEY = "KEY"
ABSENCE = "ABSENCE"
WORKER = "WORKER"
DELEGATION = "DELEGATION"
AUDIT = "AUDIT"
LEASES_BUCKET = "leases"
LEASES = f"KV_{LEASES_BUCKET}"

ABSENCES_KEPT = 256
"""An installation with more absences within the longest deadline is not being operated seriously."""

FLOW_MESSAGES = 10**12
"""The limit of FLOW's messages until an operator changes it. Nobody reaches it.

The broker derives the size of a stream's files from its limits. Without one it takes 4 MB, because FLOW keeps one
message for each subject; with this one 8 MB. A durable with several filters costs it 0.7 to 1 µs for each stored
subject when it passes from a file to the next, and nothing is stored meanwhile (measured on 2.15.1). So larger files
halve that.
"""

KEY_BYTES = 1 << 30
"""The size of KEY until an operator changes it. An agent that may begin flows may also publish keys, as many as it
likes: a bound keeps it from filling the disk. It holds some 7 million keys, at 137 bytes each."""

KEY_MESSAGE_BYTES = 256
"""The size of a message in KEY until an operator changes it. It holds the id of a flow, 32 bytes."""

AUDIT_BYTES = 256 << 20
"""The size of AUDIT until an operator changes it: records of some 500,000 segments, of a million messages each. When it
is full, nothing more is purged."""

WORKER_BYTES = 64 << 20
"""The size of WORKER until an operator changes it: the stream is in memory, and every agent may publish to it. At the
limit the oldest announcements are dropped; they are hints."""

WORKER_MESSAGE_BYTES = 256 << 10
"""The size of a message in WORKER until an operator changes it: no reader takes a larger one. Workers announce less."""

QUARANTINE_BYTES = 64 << 20
"""The size of one quarantine until an operator changes it. It holds 64 messages of the largest size that a broker
accepts by default, or some 100,000 of the usual size, which is more than people look through."""

CREATED = "handrail-created"
"""The metadata key with the time at which a restored stream was created first: the broker gives it a new one."""

IRREPLACEABLE = frozenset({FLOW, TEMPLATE})
"""Streams that are never recreated after a loss: flows and templates exist nowhere else. The sweep arms timers again,
and the first events in FLOW also show which keys are in use."""

Config = Mapping[str, Any]
"""The configuration of a stream, in terms of the JetStream API."""

# The defaults for all streams. Any other value would let somebody change or hide recorded messages.
_PLAIN: Config = {
    "storage": "file",
    "retention": "limits",
    "max_age": 0,
    "allow_direct": True,
    "sealed": False,
    "no_ack": False,
    "persist_mode": "",
    "deny_delete": False,
    "deny_purge": False,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "allow_msg_schedules": False,
    "allow_atomic": False,
    "allow_batched": False,
    "allow_msg_counter": False,
    "discard": "old",
    "discard_new_per_subject": False,
    "max_msgs_per_subject": -1,
    "mirror": None,
    "sources": None,
    "subject_transform": None,
    # nats-server 2.15.1 crashes if it publishes a message again whose header block is a single byte.
    "republish": None,
}

_WRITE_ONCE: Config = {
    **_PLAIN,
    "max_msgs_per_subject": 1,
    "discard": "new",
    "discard_new_per_subject": True,
    "deny_delete": True,
    "deny_purge": True,
}


# Bounded: new messages replace the oldest. So write-once holds by an expectation, and a subject keeps all its messages:
# nobody replaces an earlier one with a later one. Allows deletes, because people may discard messages.
_QUARANTINE: Config = {**_PLAIN, "max_bytes": QUARANTINE_BYTES, "deny_purge": True}

FORMER_VALUES: Mapping[str, Mapping[str, tuple[object, ...]]] = {
    QUARANTINE: {
        "subjects": (["quarantine.>"],),
        "discard": ("new",),
        "discard_new_per_subject": (True,),
        "max_msgs_per_subject": (1,),
        "max_bytes": (-1,),
    },
    KEY: {"max_msg_size": (-1,)},
    WORKER: {"max_msg_size": (-1,)},
}
"""Stream -> field -> the values that earlier releases gave to it: a set-up replaces them without being told to."""


def created(info: Config) -> str:
    """When a stream was created, by what the broker says of it: the time stays over `handrail admin enable-retention`.

    Whoever relies on it also compares a message: somebody may have restored a stream to an earlier state.
    """
    first: str | None = (info["config"].get("metadata") or {}).get(CREATED)
    return first or str(info["created"])


def quarantine_stream(agent: str) -> str:
    """The name of an agent's quarantine; of the coordinator's own if `agent` is empty."""
    return f"{QUARANTINE}_{agent}" if agent else QUARANTINE


def quarantined_agent(stream: str) -> str | None:
    """The agent whose quarantine a stream is; empty for the coordinator's own, None for any other stream."""
    if stream == QUARANTINE:
        return ""
    agent = stream.removeprefix(f"{QUARANTINE}_")
    return agent if agent != stream and NAME.fullmatch(agent) else None


def quarantine_config(agent: str) -> Config:
    """The required configuration of an agent's quarantine.

    Each agent has one of its own, so that a flood of messages pushes out the flooding agent's messages and no others.
    """
    return {**_QUARANTINE, "subjects": [f"quarantine.*.*.{agent}.*.*", f"quarantine.*.*.{COORDINATOR}.{agent}.*"]}


def stream_config(name: str) -> Config:
    """The required configuration of a stream with this name. Raises KeyError if it is none of Handrail's."""
    agent = quarantined_agent(name)
    return quarantine_config(agent) if agent else stream_configs()[name]


def stream_configs() -> dict[str, Config]:
    """The required configuration by name, in terms of the JetStream API, of each stream that belongs to no agent."""
    return {
        # A finished flow is purged once it is archived. Streams of earlier releases deny it, which can't be undone.
        FLOW: {**_WRITE_ONCE, "subjects": ["flow.>"], "deny_purge": False, "max_msgs": FLOW_MESSAGES},
        TIMER: {
            **_PLAIN,
            "subjects": ["due.>", "timer.>"],
            "retention": "workqueue",
            "allow_msg_schedules": True,
            # The server forces this on if schedules are allowed.
            "allow_rollup_hdrs": True,
            # A limit would drop the oldest timers.
            "max_msgs": -1,
            "max_bytes": -1,
        },
        TEMPLATE: {**_WRITE_ONCE, "subjects": ["template.>"]},
        QUARANTINE: {**_QUARANTINE, "subjects": [f"quarantine.*.*.{COORDINATOR}.{NO_AGENT}.*"]},
        KEY: {**_WRITE_ONCE, "subjects": ["key.>"], "max_bytes": KEY_BYTES, "max_msg_size": KEY_MESSAGE_BYTES},
        DELEGATION: {**_WRITE_ONCE, "subjects": ["delegation.>"]},
        AUDIT: {**_WRITE_ONCE, "subjects": ["audit.>"], "max_bytes": AUDIT_BYTES},
        # Bounded: new records replace the oldest. Each is written with the expectation that its subject is empty.
        ABSENCE: {
            **_PLAIN,
            "subjects": ["absence.>"],
            "max_msgs": ABSENCES_KEPT,
            "max_bytes": -1,
            "max_msgs_per_subject": 1,
            "deny_delete": True,
            "deny_purge": True,
            # They are read from the leader.
            "allow_direct": False,
        },
        LEASES: {
            **_PLAIN,
            "subjects": [f"$KV.{LEASES_BUCKET}.>"],
            "max_msgs_per_subject": 1,
            "discard": "new",
            "deny_delete": True,
            "allow_rollup_hdrs": True,
            "allow_msg_ttl": True,
            "subject_delete_marker_ttl": in_nanoseconds(timedelta(seconds=1)),
            # Leases are read from the leader.
            "allow_direct": False,
        },
        WORKER: {
            **_PLAIN,
            "subjects": ["worker.>"],
            "storage": "memory",
            "max_msgs_per_subject": 1,
            "max_age": in_nanoseconds(timedelta(seconds=30)),
            "max_bytes": WORKER_BYTES,
            "max_msg_size": WORKER_MESSAGE_BYTES,
        },
    }
