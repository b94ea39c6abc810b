"""Fixtures of the tests of the gRPC API."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.mesh.bus import Bus
from tests.support.api import Api, running_api


@pytest.fixture
async def api(bus: Bus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with nothing stored."""
    async with running_api(bus, tmp_path) as api:
        yield api
