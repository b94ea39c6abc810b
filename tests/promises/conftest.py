"""Fixtures of the tests that are named by promise."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from handrail.mesh.template import Template
from tests.promises.team import REFUND
from tests.support.agents import template
from tests.support.house import House, building

Build = Callable[..., Awaitable[House]]


@pytest.fixture
async def build(tmp_path: Path) -> AsyncIterator[Build]:
    """Makes the installation: of the refund, with pieces of its template replaced, or of another flow type."""
    async with AsyncExitStack() as stack:

        async def build_house(*changes: tuple[str, str], flow_type: Template | None = None) -> House:
            made = flow_type or template(REFUND, *changes)
            return await stack.enter_async_context(building(tmp_path / "house", made))

        yield build_house


@pytest.fixture
async def house(build: Build) -> House:
    """An installation of the refund as it is."""
    return await build()
