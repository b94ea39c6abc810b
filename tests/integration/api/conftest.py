"""Fixtures of the tests of the gRPC API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.mesh.bus import NatsBus
from tests.support.api import Api, running_api


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with nothing stored."""
    async with running_api(bus, tmp_path) as api:
        yield api
