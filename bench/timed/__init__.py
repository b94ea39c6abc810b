"""Flows that only wait for their deadline: the work is the coordinator's alone."""

from pathlib import Path

from google.protobuf.message import Message

from payments.v1.payments_pb2 import ChargebackReceived, CustomerNotified

AGENTS: dict[str, str] = {}

TEMPLATES = (Path(__file__).with_name("timed.yaml"),)

MESSAGES: tuple[type[Message], ...] = (ChargebackReceived, CustomerNotified)
