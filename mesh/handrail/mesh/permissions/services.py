"""What the streams' account offers to others: subjects, and how it answers on them."""

from __future__ import annotations

from typing import NamedTuple


class Answers(NamedTuple):
    """How a service answers across accounts: once, or with many messages, each within `threshold` of the previous."""

    many: bool = False
    threshold: str = ""


ONCE = Answers()
READ = Answers(many=True, threshold="10s")
PULL = Answers(many=True, threshold="1m")


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
    services = {"$JS.API.INFO": ONCE}
    for stream in streams:
        services[f"$JS.API.STREAM.INFO.{stream}"] = ONCE
        services[f"$JS.API.STREAM.MSG.GET.{stream}"] = ONCE
        services[f"$JS.API.DIRECT.GET.{stream}"] = READ
        services[f"$JS.API.DIRECT.GET.{stream}.>"] = READ
    return services


def consuming(stream: str, durable: str) -> dict[str, Answers]:
    """The services that pull from one durable of one stream, without acknowledgements."""
    return {
        f"$JS.API.CONSUMER.INFO.{stream}.{durable}": ONCE,
        f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}": PULL,
    }
