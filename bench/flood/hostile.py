"""`python -m bench.flood.hostile URL SEED_FILE KIND RATE SECONDS`: publishes without waiting for answers.

RATE are messages a second; 0: as fast as it can. KIND is `event` (first events of new flows), `proposal` (each also
followed by a proposal), `failure` or `divergence` (in flows that do not exist). Prints how many messages it sent.
"""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nkeys
from google.protobuf.message import Message
from google.type.money_pb2 import Money

from handrail.mesh.bus.nkey import public_key
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import Address, Kind
from handrail.v1.event_pb2 import Event
from handrail.v1.failure_pb2 import DIVERGENCE_KIND_LATE_OUTCOME, Divergence, StepFailed
from payments.v1.payments_pb2 import ChargebackReceived, LargeRefundGranted

NAME = "hostile"
_FLOW_TYPE = "flooded"
_BATCH = 20
_EUROS = Money(currency_code="EUR", units=1000)


def main(url: str, seed_file: Path, kind: str, rate: float, seconds: float) -> None:
    """Floods for so many seconds."""
    host, _, port = url.removeprefix("nats://").partition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(_connect(connection.makefile("rb").readline(), seed_file.read_text().strip()))
        sent, began = 0, time.monotonic()
        while time.monotonic() < began + seconds:
            lines = [line for _ in range(_BATCH) for line in _flow(kind)]
            connection.sendall(b"".join(lines))
            sent += len(lines)
            if rate:
                time.sleep(max(0.0, began + sent / rate - time.monotonic()))
        connection.sendall(b"PING\r\n")
        while b"PONG" not in connection.recv(65536):
            """The broker has read everything."""
    print(sent)


def _connect(hello: bytes, seed: str) -> bytes:
    """Answers the broker's greeting with a signature of its nonce."""
    nonce = json.loads(hello.removeprefix(b"INFO "))["nonce"]
    signature = base64.urlsafe_b64encode(nkeys.from_seed(seed.encode()).sign(nonce.encode())).rstrip(b"=").decode()
    options = {"verbose": False, "headers": True, "nkey": public_key(seed), "sig": signature}
    return f"CONNECT {json.dumps(options)}\r\n".encode()


def _flow(kind: str) -> Iterator[bytes]:
    flow_id = os.urandom(16).hex()
    root = ids.start_id(flow_id)
    if kind in ("event", "proposal"):
        yield _line(flow_id, Kind.EVENT, root, _claim())
    if kind == "proposal":
        granted = LargeRefundGranted(chargeback_id="c", account_id="a", amount=_EUROS, email="h@example.org")
        yield _line(flow_id, Kind.PROPOSAL, ids.outcome_id(flow_id, "grant", root, 0, 0), granted, root=root)
    if kind == "failure":
        failed = StepFailed(error_class="Broken", text="it broke", retryable=True)
        yield _line(flow_id, Kind.FAILURE, ids.attempt_id("failure", flow_id, "grant", root, 0, 1), failed, root=root)
    if kind == "divergence":
        yield _line(flow_id, Kind.DIVERGENCE, root, Divergence(kind=DIVERGENCE_KIND_LATE_OUTCOME, event_id=root))


def _claim() -> ChargebackReceived:
    return ChargebackReceived(chargeback_id="c", account_id="a", amount=_EUROS, reason="r" * 60)


def _line(flow_id: str, kind: Kind, event_id: str, message: Message, *, root: str = "") -> bytes:
    address = Address(_FLOW_TYPE, flow_id, kind, NAME, event_id, message.DESCRIPTOR.full_name)
    body = Event(
        event_id=event_id,
        source=NAME,
        flow_type=_FLOW_TYPE,
        flow_id=flow_id,
        template_version=1,
        step="grant" if root else "",
        root=root,
        attempt=1 if root else 0,
        causation_id=root,
        output_total=1,
        data=pack(message),
    ).SerializeToString()
    return b"PUB %b %d\r\n%b\r\n" % (address.subject.encode(), len(body), body)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
