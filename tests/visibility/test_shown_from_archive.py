"""Flows that left FLOW are shown from the archive as they were shown before."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import Engine, select

from handrail.coordinator.lists.index import IndexSettings
from handrail.mesh.bus import NatsBus
from handrail.mesh.fold.status import FINAL
from handrail.visibility.archive.folder import Folder, LockedFolder
from handrail.visibility.index import schema
from tests.support.api import Api, running_api
from tests.support.archived import mark
from tests.support.followed import following, until_covered
from tests.support.indexed import secret_file, serving
from tests.support.mesh import Mesh
from tests.support.retained import do_not_wait, in_flow, purge_all, retention
from tests.support.shown import evidence_of, flow_of, many_kinds, record_refunds, shown, store_templates
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing waits for the clock."""
    do_not_wait(monkeypatch)


@asynccontextmanager
async def coordinator(bus: NatsBus, engine: Engine, folder: Folder, tmp_path: Path) -> AsyncIterator[Api]:
    """Runs a coordinator that asks an index with an archive."""
    secret = secret_file(tmp_path)
    async with (
        serving(bus, engine, secret, archive=folder) as port,
        running_api(bus, tmp_path, index=IndexSettings(address=f"127.0.0.1:{port}", secret=secret)) as api,
    ):
        yield api


def ended(engine: Engine) -> int:
    """How many flows are over, as the index has them."""
    with engine.connect() as connection:
        return len(connection.execute(select(schema.flow).where(schema.flow.c.ended.is_not(None))).all())


@pytest.mark.timeout(300)
async def test_p4_every_answer_is_the_same_before_and_after_the_purge(
    mesh: Mesh,
    bus: NatsBus,
    engine: Engine,
    folder: Folder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Messages come in several pages, some of which have one message that is larger than a page.
    monkeypatch.setattr("handrail.visibility.serve.archived.PAGE_BYTES", 400)
    await store_templates(mesh)
    recorded = await record_refunds(bus, 12)
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked), coordinator(bus, engine, folder, tmp_path) as api:
            names = [*recorded, *await many_kinds(bus, api)]
            await until_covered(bus, engine)
            await until(lambda: ended(engine) == len(names))
            await mesh.until_settled("track", "decide")
            before = [await shown(api, each) for each in names]
            evidence = [await evidence_of(api, each) for each in names]
            assert {each.flow.status for each in before} == FINAL
            assert any(each.void_reason for each in before[-4].events)
            assert any(each.flow.acts for each in before)
            assert any(each.flow.approvals for each in before)
            assert any(not each.HasField("event") for each in before[-4].events)
            last = max(each.flow.last_sequence for each in before)
            await until(lambda: mark(folder) >= last)
            await purge_all(retention(bus, engine, locked), flows=len(names))
            assert await in_flow(bus) == set()
            assert [await shown(api, each) for each in names] == before
            assert [await evidence_of(api, each) for each in names] == evidence
        # And after a restart of both.
        async with coordinator(bus, engine, folder, tmp_path) as api:
            assert await flow_of(api, names[0]) == before[0].flow
