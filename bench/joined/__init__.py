"""A fan-out with a counted join: split, pay, tell."""

from pathlib import Path

from google.protobuf.message import Message

from payments.v1.payments_pb2 import ChargebackReceived, CustomerNotified, RefundPaid, SmallRefundGranted

AGENTS = {name: f"bench.joined.agents:{name}" for name in ("split", "pay", "tell")}

TEMPLATES = (Path(__file__).with_name("joined.yaml"),)

MESSAGES: tuple[type[Message], ...] = (ChargebackReceived, SmallRefundGranted, RefundPaid, CustomerNotified)
