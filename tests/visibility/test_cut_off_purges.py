"""A flow that is purged message by message, and cut off anywhere, does not go on, and is finished later."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.bus.api import API_TIMEOUT
from handrail.mesh.errors import BrokerUnavailable
from handrail.mesh.streams import FLOW
from handrail.v1.decision_pb2 import FlowHalted
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.archive.verdict_log import numbered
from handrail.visibility.retention.retention import Retention
from tests.support.archived import mark
from tests.support.early import outcome
from tests.support.flows import FLOW_ID, decision, enriched, notified, start, template
from tests.support.followed import following, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.nats_server import NatsServer
from tests.support.purging import left, quarantined
from tests.support.raw_client import raw_client
from tests.support.retained import do_not_wait, flow_id, handle_all, in_flow, purge_all, retention
from tests.support.waiting import until

_EARLY = outcome(7, run=1)
_MESSAGES = (_EARLY, start(), enriched(), notified())


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock, and no flow is so close together that it is purged at once."""
    do_not_wait(monkeypatch)
    monkeypatch.setattr("handrail.visibility.retention.departure._NEAR", 0)


@asynccontextmanager
async def finished(mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder) -> AsyncIterator[LockedFolder]:
    """A flow that is over, archived and handled. An agent said something of it before it began."""
    await mesh.put(template())
    last = await publish(bus, *_MESSAGES)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            yield locked


async def cut_off(
    bus: NatsBus, engine: Engine, locked: LockedFolder, monkeypatch: pytest.MonkeyPatch, *, after: int
) -> Retention:
    """Purges so many messages, and gets no answer then. Returns who may go on, unless it crashed."""
    purges = 0
    ask = NatsBus.request_json

    async def dies(
        self: NatsBus, api_subject: str, payload: Mapping[str, Any] | None = None, *, timeout: timedelta = API_TIMEOUT
    ) -> dict[str, Any]:
        nonlocal purges
        if api_subject == f"$JS.API.STREAM.PURGE.{FLOW}":
            purges += 1
            if purges > after:
                raise BrokerUnavailable("no answer")
        return await ask(self, api_subject, payload, timeout=timeout)

    work = retention(bus, engine, locked)
    with monkeypatch.context() as crashing:
        crashing.setattr(NatsBus, "request_json", dies)
        with pytest.raises(BrokerUnavailable):
            await purge_all(work, flows=1)
    return work


@pytest.mark.parametrize("after", range(len(_MESSAGES)))
async def test_p2_no_reader_finds_a_flow_that_lacks_a_part_of_what_was_purged(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    async with finished(mesh, bus, engine, folder) as locked:
        await cut_off(bus, engine, locked, monkeypatch, after=after)
        there = [each.event.event_id for each in await left(bus, FLOW_ID)]
        assert len(there) == len(_MESSAGES) - after
        assert (start().event.event_id in there) == (after == 0)
        causes = [enriched().event.event_id in there, notified().event.event_id in there]
        assert causes == sorted(causes), "an outcome outlived what caused it"
        await purge_all(retention(bus, engine, locked), flows=1)
    assert await in_flow(bus) == set()
    assert [each.flow_id for _, each in numbered(folder)] == [FLOW_ID]


@pytest.mark.parametrize("after", range(1, len(_MESSAGES)))
async def test_p2_what_comes_to_a_flow_whose_purge_was_cut_off_is_late(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    async with finished(mesh, bus, engine, folder) as locked:
        await cut_off(bus, engine, locked, monkeypatch, after=after)
        late = await publish(bus, decision(FlowHalted(reason="a person asked")))
        await until(lambda: mark(folder) >= late)
        await handle_all(bus)
        work = retention(bus, engine, locked)
        await purge_all(work, flows=1)
        for _ in range(3):
            await work.round()
        assert await in_flow(bus) == set()
        assert [each.withdrawn for _, each in numbered(folder, withdrawn=True)] == [False]
        [kept] = (await quarantined(bus)).values()
        assert (kept.stream_sequence, kept.reason) == (late, ErrorReason.ERROR_REASON_FLOW_ARCHIVED)


async def test_what_a_purge_left_is_not_taken_for_late(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with finished(mesh, bus, engine, folder) as locked:
        await purge_all(await cut_off(bus, engine, locked, monkeypatch, after=1), flows=1)
    assert await in_flow(bus) == set()
    assert await quarantined(bus) == {}


@pytest.mark.parametrize("token", [b"\xff\xfe", "\N{REPLACEMENT CHARACTER}".encode(), b'"\\'])
async def test_no_subject_keeps_a_flow_or_takes_another_one(
    mesh: Mesh, bus: NatsBus, nats_server: NatsServer, engine: Engine, folder: Folder, token: bytes
) -> None:
    running = await publish(bus, start(flow_id(1)))
    async with raw_client(nats_server.url) as stranger:
        await stranger.publish(b"flow.refund.%b.event.%b" % (FLOW_ID.encode(), token), b"text")
    async with finished(mesh, bus, engine, folder) as locked:
        await purge_all(retention(bus, engine, locked), flows=1)
    page = await bus.read_forward(FLOW, "flow.>", from_sequence=1, limit=10)
    assert [each.sequence for each in page.messages] == [running]
