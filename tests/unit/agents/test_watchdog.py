"""What holds up the event loop is named."""

from __future__ import annotations

import logging
import time

import pytest

from handrail.agents import Agent, watchdog
from handrail.agents.watchdog import Watchdog
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived
from tests.support.agents import enriched


async def test_a_handler_that_holds_up_the_event_loop_is_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watchdog, "_BEAT", 0.01)
    monkeypatch.setattr(watchdog, "_TOO_LONG", 0.05)
    agent = Agent("enrichment")

    @agent.on(ChargebackReceived)
    async def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.02)  # noqa: ASYNC251  # that is the point
        time.sleep(0.1)  # noqa: ASYNC251
        return enriched()

    watching = Watchdog(agent.handlers)
    watching.start()
    with caplog.at_level(logging.WARNING):
        await enrich(ChargebackReceived())
    watching.stop()
    [record] = caplog.records
    assert f"handler {agent.handlers[0].name}" in record.getMessage()
    assert "test_watchdog.py, line" in record.getMessage()
