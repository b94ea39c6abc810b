"""Windows of a real browser at a console, in which a test fails if a page breaks its policy or a script fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from playwright.async_api import Page, expect

from tests.support.chromium import running_chromium
from tests.support.console import console_process

Opened = Callable[..., AbstractAsyncContextManager[Page]]
"""Opens the sign-in page in a window; takes the options of a browser context."""


@asynccontextmanager
async def windows(address: str, folder: Path, tokens: Mapping[str, str], *arguments: str) -> AsyncIterator[Opened]:
    """A console of the coordinator at this address, in which each of these people signs in by a click."""
    identities = folder / "identities"
    identities.mkdir()
    for person, token in tokens.items():
        (identities / person).write_text(token)
    with console_process(address, "--identities", str(identities), *arguments) as origin:
        async with running_chromium() as chromium:

            @asynccontextmanager
            async def window(**options: Any) -> AsyncIterator[Page]:
                context = await chromium.new_context(base_url=origin, **options)
                page = await context.new_page()
                complaints: list[str] = []

                def complain(text: str) -> None:
                    # What others serve is theirs.
                    if page.url.startswith(origin):
                        complaints.append(text)

                page.on("console", lambda message: complain(message.text) if message.type == "error" else None)
                page.on("pageerror", lambda error: complain(str(error)))
                await page.goto("/sign-in")
                yield page
                assert [each for each in complaints if "status of" not in each] == []
                await context.close()

            yield window


async def signed_in(page: Page, person: str = "vera") -> None:
    """Signs in by a click."""
    await page.get_by_role("button", name=person).click()
    await page.wait_for_url("**/")
    await expect(page.get_by_role("link", name=person)).to_be_visible()


async def press_to(page: Page, text: str) -> None:
    """Presses Tab until something with this text has the focus."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if (await page.evaluate("document.activeElement.textContent")).strip() == text:
            return
    raise AssertionError(f"Tab does not lead to {text}")
