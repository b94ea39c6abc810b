"""An agent that begins a flow says what its key is: no lie or nonsense reaches KEY, or keeps flows from leaving."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import purged
from handrail.mesh.streams.streams import KEY
from handrail.mesh.wire import ids
from handrail.mesh.wire.envelope import Entry
from handrail.visibility.archive.folder import Folder, LockedFolder
from tests.support.archived import mark
from tests.support.flows import enriched, notified, start, template
from tests.support.followed import following, until_covered
from tests.support.mesh import Mesh, publish
from tests.support.retained import do_not_wait, handle_all, in_flow, purge_all, retention
from tests.support.waiting import until

ANOTHER = ids.flow_id_from_key("refund", "order-17")
OWN = ids.flow_id_from_key("refund", "order-1")


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What is tested here does not depend on the database."""
    return f"sqlite:///{tmp_path}/index.db"


def claiming(key_hash: str, *, key: str = "") -> Entry:
    """The first event of a flow that says this of its key."""
    entry = start(OWN)
    entry.event.key_hash = key_hash
    entry.event.key = key
    return entry


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(claiming(f"{ANOTHER}.1"), id="the record of another flow's purge"),
        pytest.param(claiming("two words"), id="no subject"),
        pytest.param(claiming("a\r\nPUB flow.x 0\r\n"), id="a line of the protocol"),
        pytest.param(claiming("a" * 5000), id="too long"),
        pytest.param(claiming("*"), id="a wildcard"),
        pytest.param(claiming(ids.key_hash("refund", "order-17"), key="order-1"), id="another flow's key"),
    ],
)
async def test_p3_no_first_event_has_keys_recorded_that_are_not_its_own(
    mesh: Mesh, bus: NatsBus, engine: Engine, folder: Folder, monkeypatch: pytest.MonkeyPatch, first: Entry
) -> None:
    do_not_wait(monkeypatch)
    await mesh.put(template())
    last = await publish(bus, first, enriched(OWN), notified(OWN))
    with LockedFolder(folder.path) as locked:
        async with following(bus, engine, locked):
            await until(lambda: mark(folder) >= last)
            await until_covered(bus, engine)
            await handle_all(bus)
            await purge_all(retention(bus, engine, locked), flows=1)
    assert await in_flow(bus) == set()
    assert await purged.recorded(bus, "refund", ANOTHER) is None
    assert await purged.recorded(bus, "refund", OWN) == ("refund", OWN, 1)
    page = await bus.read_forward(KEY, "key.>", from_sequence=1, limit=100)
    own = {f"key.refund.{OWN}.1", f"key.refund.{ids.key_hash('refund', 'order-1')}"}
    assert {each.subject for each in page.messages} <= own
