"""Agents that do almost nothing, so that the benchmark measures Handrail: happy, compensated, approved, gated."""

from pathlib import Path

from google.protobuf.message import Message

from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    LargeRefundGranted,
    RefundPaid,
)

AGENTS = {name: f"bench.chain.agents:{name}" for name in ("detect", "enrich", "notify", "propose")}

TEMPLATES = tuple(Path(__file__).with_name(f"{name}.yaml") for name in ("happy", "compensated", "approved", "gated"))

MESSAGES: tuple[type[Message], ...] = (
    ChargebackReceived,
    ChargebackEnriched,
    LargeRefundGranted,
    RefundPaid,
    CustomerNotified,
)
