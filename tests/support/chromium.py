"""A headless Chromium for tests: the one that is installed, driven by Playwright. Tests without it are skipped."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, async_playwright, expect

from tests.support.waiting import PATIENCE

EXECUTABLE = os.environ.get("CHROMIUM") or shutil.which("chromium") or ""
"""Debian's package is `chromium`; the variable CHROMIUM names another executable."""


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """Runs a browser while the block runs."""
    if not EXECUTABLE:
        pytest.skip("there is no chromium: install it, or name one with CHROMIUM")
    expect.set_options(timeout=PATIENCE * 1000)
    async with async_playwright() as playwright:
        # Chromium's sandbox needs what containers don't have; the pages are ours.
        browser = await playwright.chromium.launch(executable_path=EXECUTABLE, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            await browser.close()
