"""Fixtures of the tests of the console."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from handrail.mesh.bus import NatsBus
from tests.support.api import Api, running_api
from tests.support.console import Browser, browsing


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path) -> AsyncIterator[Api]:
    """A coordinator with nothing stored."""
    async with running_api(bus, tmp_path) as api:
        yield api


@pytest.fixture
async def browser(api: Api) -> AsyncIterator[Browser]:
    """A browser at a console of this coordinator; nobody is signed in."""
    async with browsing(api) as browser:
        yield browser


@pytest.fixture
async def vera(api: Api, browser: Browser) -> Browser:
    """A browser in which Vera is signed in, who may see everything and change nothing."""
    answer = await browser.sign_in(api.token("vera", "viewer"))
    assert answer.status_code == 303, answer.text
    return browser
