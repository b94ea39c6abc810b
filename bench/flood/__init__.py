"""An agent that proposes, beside another that floods the broker: approved, flooded."""

from pathlib import Path

from google.protobuf.message import Message

from payments.v1.payments_pb2 import ChargebackReceived, LargeRefundGranted

AGENTS = {"propose": "bench.chain.agents:propose"}

TEMPLATES = (
    Path(__file__).parents[1] / "chain" / "approved.yaml",
    Path(__file__).with_name("flooded.yaml"),
)

MESSAGES: tuple[type[Message], ...] = (ChargebackReceived, LargeRefundGranted)
