"""Who gives up connecting is done in time, though the client may lose a cancellation."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from datetime import timedelta

import pytest

from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.bus.client import Client
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
    monkeypatch.setattr("handrail.mesh.waiting._CANCEL_AGAIN", 0.01)
    settings = BusSettings(("nats://127.0.0.1:1",), "ledger", connect_timeout=timedelta(milliseconds=10))
    async with asyncio.timeout(5):
        with pytest.raises(BrokerUnavailable, match="can't connect"):
            await LosesCancellations.open(settings)


async def test_closing_ends_a_reconnect_that_loses_its_cancellation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("handrail.mesh.waiting._CANCEL_AGAIN", 0.01)
    lost = asyncio.Event()

    async def reconnect() -> None:
        while not lost.is_set():
            with suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            lost.set()
        await asyncio.Event().wait()

    client = Client()
    client._reconnection_task = reconnecting = asyncio.create_task(reconnect())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        with suppress(AssertionError):  # nats-py's way to say that it was never connected
            await client.close()
    assert lost.is_set()
    assert reconnecting.cancelled()
