"""Who gives up connecting is done in time, though the client may lose a cancellation."""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta

import pytest

from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.connection import Connection
from handrail.mesh.errors import BrokerUnavailable


class LosesCancellations(Connection):
    """Connects for ever, and goes on after each of the first cancellations, as nats-py does between two attempts."""

    left = 2

    async def _connect(self, tls: ssl.SSLContext | None) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.left -= 1
                if not self.left:
                    raise


async def test_a_lost_cancellation_is_given_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handrail.mesh.bus.connection._CANCEL_AGAIN", 0.01)
    settings = BusSettings(("nats://127.0.0.1:1",), "ledger", connect_timeout=timedelta(milliseconds=10))
    async with asyncio.timeout(5):
        with pytest.raises(BrokerUnavailable, match="can't connect"):
            await LosesCancellations.open(settings)
