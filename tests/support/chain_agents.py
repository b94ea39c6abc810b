"""The agents of CHAIN, for workers in their own processes. They record what they do in the folder CHAIN_FOLDER.

`ledger` kills its own process right after it has moved the money, as often as the file `kills` says. For the
chargebacks in the file `guilty` it does so every time, while other handlers run beside it.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta
from pathlib import Path

from handrail.agents import Agent, Context
from payments.v1.payments_pb2 import (
    ChargebackEnriched,
    ChargebackReceived,
    CustomerNotified,
    RefundPaid,
    RefundReversed,
)
from tests.support.agents import enriched, notified, paid, received

detection = Agent("detection")
enrichment = Agent("enrichment")
ledger = Agent("ledger")
notification = Agent("notification")
nobody = Agent("enrichment")
stuck = Agent("enrichment", grace=timedelta(milliseconds=200))


def folder() -> Path:
    """The folder with the agents' records."""
    return Path(os.environ["CHAIN_FOLDER"])


def note(name: str, line: str) -> None:
    """Appends a line to a file in one write, so that it survives the death of the process."""
    with (folder() / name).open("a") as file:
        file.write(f"{line}\n")


@detection.source
async def feed() -> None:
    """Starts a flow for each line of the file `chargebacks`."""
    note("sources", str(os.getpid()))
    for line in (folder() / "chargebacks").read_text().split():
        await detection.start_flow("refund", received(line), key=line)


@enrichment.on(ChargebackReceived)
async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
    """Looks up the customer."""
    note("workers", str(os.getpid()))
    return enriched(event.chargeback_id)


@stuck.on(ChargebackReceived)
def never_end(event: ChargebackReceived) -> ChargebackEnriched:
    """Waits for something that never happens."""
    note("stuck", str(os.getpid()))
    threading.Event().wait()
    raise AssertionError("unreachable")


@ledger.on(ChargebackEnriched)
def pay(event: ChargebackEnriched, ctx: Context) -> RefundPaid:
    """Moves the money, then kills the process if a kill is left."""
    note("payments", ctx.idempotency_key)
    guilty = folder() / "guilty"
    if guilty.exists():
        note("begun", f"{event.chargeback_id}@{os.getpid()}")
        if event.chargeback_id in guilty.read_text().split():
            time.sleep(0.1)
            # The status of an agent that does not fit its templates. From a handler it means nothing.
            os._exit(2)
        time.sleep(0.4)
    kills = folder() / "kills"
    left = int(kills.read_text()) if kills.exists() else 0
    if left:
        kills.write_text(str(left - 1))
        os.kill(os.getpid(), signal.SIGKILL)
    return paid(f"t-{ctx.idempotency_key}", event.chargeback_id)


@ledger.undoes(RefundPaid)
def take_back(event: RefundPaid, ctx: Context) -> RefundReversed:
    """Moves the money back."""
    note("reversals", ctx.idempotency_key)
    return RefundReversed(
        chargeback_id=event.chargeback_id, transfer_id=event.transfer_id, reversal_id=ctx.idempotency_key
    )


@notification.on(RefundPaid)
async def notify(event: RefundPaid) -> CustomerNotified:
    """Notifies the customer."""
    return notified(event.chargeback_id)
