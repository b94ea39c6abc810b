"""Signing in at an ordinary identity provider in a real browser: from the sign-in page to the overview, and out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from handrail.mesh.bus import NatsBus
from tests.support.provider import installed_provider
from tests.support.provider_house import CLIENTS, house
from tests.support.windows import windows

# What npm has to fetch may take its time: that is no fault of ours.
pytestmark = pytest.mark.timeout(600)


async def at_the_provider(page: Page, person: str) -> None:
    """Signs in there, and lets the console act."""
    await page.locator("input[name=login]").fill(person)
    await page.locator("input[name=password]").fill("any")
    await page.get_by_role("button", name="Sign-in").click()
    await page.get_by_role("button", name="Continue").click()


async def test_a_person_signs_in_sees_the_overview_and_signs_out(
    bus: NatsBus, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    installation = installed_provider(tmp_path_factory.mktemp("provider"))
    secret = tmp_path / "secret"
    secret.write_text(CLIENTS["handrail-console"] + "\n")
    async with house(bus, installation, tmp_path) as (api, provider):
        settings = {
            "--oidc-issuer": provider.issuer,
            "--oidc-name": "Example",
            "--oidc-resource": "urn:handrail:api",
            "--console-client-secret-file": str(secret),
            "--pasted-tokens": "off",
        }
        words = [word for pair in settings.items() for word in pair]
        async with windows(api.address, tmp_path, {}, *words) as opened, opened() as page:
            await page.goto("/templates")
            await page.get_by_role("link", name="Sign in with Example").click()
            await at_the_provider(page, "olga")
            await expect(page).to_have_url(re.compile("/templates$"))
            await page.get_by_role("link", name="Overview").click()
            await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
            await page.get_by_role("link", name="olga").click()
            await page.get_by_role("button", name="Sign out", exact=True).click()
            await expect(page.get_by_role("status")).to_contain_text("You are signed out of this console.")
            await page.goto("/")
            await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
            await page.goto("/sign-in?out=yes")
            await page.get_by_role("link", name="Sign out at Example, too").click()
            await page.get_by_role("button", name="Yes, sign me out").click()
            await expect(page.get_by_role("heading", name="Sign-out Success")).to_be_visible()
            assert page.url.startswith(provider.issuer)
