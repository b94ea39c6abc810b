"""Compares the configuration of a stream or durable with what Handrail promises. Pure.

A field is Handrail's if another value would break a promise. All others are the operator's, who may change them with
any tool of the broker: replicas, placement, compression, description, the size of a message, and most limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from handrail.mesh.instants import in_nanoseconds
from handrail.mesh.streams.streams import ABSENCE, AUDIT, FLOW, FORMER_VALUES, KEY, QUARANTINE, TIMER, WORKER, Config

LEAST_KEY_AGE = timedelta(days=7)
"""The shortest time after which KEY may forget a key, if an operator wants it to: then the key begins a new flow."""

_LIMITS = frozenset({"max_bytes", "max_msgs"})

_REPLACED = "a later message could replace an earlier one"
_REMOVED = "what is recorded could be deleted"
_PUBLISHERS = "a publisher could change or remove what others recorded"
_ELSEWHERE = "messages would be stored, or shown, where no permission foresees it"
_DROPPED = "the oldest messages would be dropped in silence"
_UNDELIVERED = "messages would be dropped in silence, or wait behind others"

_WHY = {
    "storage": "a restart of the broker would lose its messages",
    "persist_mode": "the broker would acknowledge messages before it has written them",
    "no_ack": "no publisher would learn whether its message is stored",
    "sealed": "no message could be stored",
    "max_age": "messages would expire: open flows would be lost, and late duplicates accepted again",
    "retention": "messages would be removed once they are delivered, or never",
    "discard": _REPLACED,
    "discard_new_per_subject": _REPLACED,
    "max_msgs_per_subject": _REPLACED,
    "deny_delete": _REMOVED,
    "deny_purge": _REMOVED,
    "allow_rollup_hdrs": _PUBLISHERS,
    "allow_msg_ttl": _PUBLISHERS,
    "allow_msg_schedules": _PUBLISHERS,
    "allow_msg_counter": _PUBLISHERS,
    "allow_atomic": _PUBLISHERS,
    "allow_batched": _PUBLISHERS,
    "allow_direct": "reads would get no answer, or an outdated one",
    "subjects": _ELSEWHERE,
    "mirror": _ELSEWHERE,
    "sources": _ELSEWHERE,
    "subject_transform": _ELSEWHERE,
    "republish": _ELSEWHERE,
    "max_bytes": _DROPPED,
    "max_msgs": _DROPPED,
    "ack_policy": _UNDELIVERED,
    "max_deliver": _UNDELIVERED,
    "max_ack_pending": _UNDELIVERED,
    "inactive_threshold": "the broker would delete it while nobody consumes it",
    "headers_only": "messages would be delivered without their content",
    "deliver_subject": _ELSEWHERE,
}
"""What a wrong value does."""

_NANOSECONDS = frozenset({"max_age", "subject_delete_marker_ttl", "inactive_threshold", "ack_wait", "duplicate_window"})
_OF_THE_SERVER = "_nats."
"""The prefix of metadata that the server writes itself; it differs from server to server."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that has another value than it must have."""

    field: str
    wanted: object
    actual: object

    @property
    def why(self) -> str:
        """What the value does."""
        return _WHY.get(self.field, "Handrail relies on it")

    def __str__(self) -> str:
        return f"{self.field} is {shown(self.field, self.actual)}, not {shown(self.field, self.wanted)} ({self.why})"


def starting_values(stream: str) -> frozenset[str]:
    """The fields of a stream's configuration that matter at its creation only, and are the operator's afterwards.

    A full stream refuses messages, and the publisher is told. TIMER and ABSENCE would drop their oldest instead: timers
    would not fire, and time without a coordinator would count. No flow depends on what QUARANTINE, AUDIT and WORKER
    keep, so they may keep it for as long as the operator likes. Whether FLOW may be purged is decided at its creation:
    the broker does not take back a refusal. The size of a message in KEY and WORKER keeps them from filling fast.
    """
    if stream in (TIMER, ABSENCE):
        return frozenset()
    if stream == WORKER:
        return _LIMITS | {"max_age", "max_msg_size"}
    if stream == AUDIT or stream.startswith(QUARANTINE):
        return _LIMITS | {"max_age"}
    return _LIMITS | {FLOW: {"deny_purge"}, KEY: {"max_msg_size"}}.get(stream, set())


def broken(stream: str, wanted: Config, actual: Config) -> tuple[Difference, ...]:
    """The differences of a stream that break a promise."""
    free = starting_values(stream)
    if stream == KEY and actual.get("max_age", 0) >= in_nanoseconds(LEAST_KEY_AGE):
        free |= {"max_age"}
    return tuple(each for each in differences(wanted, actual) if each.field not in free)


def is_former(stream: str, difference: Difference) -> bool:
    """Whether an earlier release of Handrail gave a field of a stream this value."""
    former = FORMER_VALUES.get(stream, {}).get(difference.field, ())
    return any(_normal(value) == _normal(difference.actual) for value in former)


def differences(wanted: Config, actual: Config) -> tuple[Difference, ...]:
    """The wanted fields that have another value. The server omits fields that are off or empty."""
    return tuple(
        Difference(field, value, actual.get(field))
        for field, value in wanted.items()
        if _normal(value) != _normal(actual.get(field))
    )


def changes(before: Config, after: Config) -> list[str]:
    """What somebody changed in a configuration: `max_age was 0, is 1 s`."""
    return [
        f"{field} was {shown(field, before.get(field))}, is {shown(field, after.get(field))}"
        for field in sorted(before.keys() | after.keys())
        if _normal(before.get(field)) != _normal(after.get(field))
    ]


def shown(field: str, value: object) -> str:
    """The value of a field, for people."""
    if field in _NANOSECONDS and isinstance(value, int) and value > 0:
        return f"{value / 1e9:g} s"
    return repr(_normal(value)) if isinstance(value, Mapping) else repr(value)


def _normal(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(value, key=repr) or None
    if isinstance(value, Mapping):
        return {key: each for key, each in value.items() if not str(key).startswith(_OF_THE_SERVER)} or None
    return value or None
