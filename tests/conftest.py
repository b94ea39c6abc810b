"""Settings and fixtures for every test.

A server of its own costs a test about 50 ms, less than cleaning up behind another test would. The cluster costs
seconds: it is shared by a module, and `nats_cluster` empties it.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from hypothesis import settings

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.streams import ensure_streams
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from tests.support.mesh import Mesh
from tests.support.nats_server import NatsCluster, NatsServer, running_cluster, running_server

pytest_plugins = ["tests.support.skips"]

# A loaded machine is no bug: examples are bounded by their number, never by the time one takes.
settings.register_profile("handrail", deadline=None)
settings.load_profile("handrail")

Connect = Callable[[BusSettings], Awaitable[NatsBus]]


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server of the test's own: no accounts, nothing stored. It may be killed and started again."""
    with running_server(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Connects buses that are closed when the test ends."""
    async with AsyncExitStack() as stack:

        async def open_bus(wanted: BusSettings) -> NatsBus:
            return await stack.enter_async_context(await NatsBus.connect(wanted))

        yield open_bus


@pytest.fixture
async def bus(nats_server: NatsServer, connect: Connect) -> NatsBus:
    """A bus of the coordinator's on `nats_server`, with the streams there."""
    bus = await connect(nats_server.settings("coordinator"))
    await ensure_streams(bus)
    return bus


@pytest.fixture
def catalog(bus: NatsBus) -> Catalog:
    """The catalog on `bus`, empty at first."""
    return Catalog(bus)


@pytest.fixture
def mesh(bus: NatsBus, catalog: Catalog) -> Mesh:
    """Templates and flows on `bus`; nothing is stored at first."""
    return Mesh(bus, catalog)


@pytest.fixture
def store(bus: NatsBus, catalog: Catalog) -> FlowStore:
    """The flows on `bus`."""
    return FlowStore(bus, catalog)


@pytest.fixture(scope="module")
def shared_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three servers that replicate, for all tests of a module."""
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
async def nats_cluster(shared_cluster: NatsCluster) -> NatsCluster:
    """The cluster with all its servers running and no stream in it."""
    await shared_cluster.restore()
    return shared_cluster


@pytest.fixture
async def cluster_bus(nats_cluster: NatsCluster, connect: Connect) -> NatsBus:
    """A bus of the coordinator's on the cluster, with the streams there, each on three servers."""
    bus = await connect(nats_cluster.settings("coordinator"))
    await ensure_streams(bus, replicas=3)
    return bus
