"""Attacks that are known to work, and why: docs/security.md names each."""

from __future__ import annotations

from typing import NamedTuple


class Open(NamedTuple):
    """An attack that is not refused."""

    title: str
    reason: str


OPEN: dict[str, Open] = {
    "23": Open(
        "whoever has the coordinator's nkey forges votes",
        "votes carry no signature of the voter: the broker's word that the coordinator wrote them is the only proof",
    ),
    "24d": Open(
        "whoever has the coordinator's nkey creates a stream of ours that is missing, and wipes the record through it",
        "run time creates what is missing, and a stream may publish its messages once more, as requests to the broker",
    ),
    "24c": Open(
        "whoever has the coordinator's nkey changes a durable, so that it delivers less, or ends it",
        "the broker's request that creates a durable also changes one, and an activation needs it",
    ),
    "24f": Open(
        "whoever has the nkey of `retention` empties FLOW",
        "a request to purge names the stream, and the broker can't limit it to finished flows",
    ),
    "29b": Open(
        "a stranger holds all 500 connections of a coordinator, and keeps new callers out",
        "the limit holds for all hosts together: gRPC offers none for each host",
    ),
    "75": Open(
        "images are not pinned by digest",
        "deploy/images.lock has exact tags; digests come from the registry, when make pin-images asks it",
    ),
    "114": Open(
        "an agent names a person in its own proposal as who asked for it, and so keeps that person from voting",
        "the call that a proposal names is written by whoever publishes it; it bars a voter and gives nobody a vote",
    ),
    "115": Open(
        "an agent of another flow type publishes under the id of a keyed flow before that flow begins",
        "a flow's id does not say its type, and that of a key can be known beforehand; the older of two flows is shown",
    ),
    "116": Open(
        "a template admin holds up all replays of a replica by not reading the responses of one",
        "one replay runs at a time, and its limit of 30 minutes is looked at between pages",
    ),
}
