"""axe-core in a page: what keeps people from using it. Needs Node to install it: without, tests are skipped."""

from __future__ import annotations

from pathlib import Path

from playwright.async_api import Page

from tests.support.node import installed

_PACKAGE = Path(__file__).with_name("axe")
_GRAVE = ("serious", "critical")


def installed_axe(folder: Path) -> str:
    """The script, installed into this folder."""
    return (installed(folder, _PACKAGE) / "node_modules/axe-core/axe.min.js").read_text()


async def grave_violations(page: Page, script: str) -> list[str]:
    """What axe-core finds serious or critical on a page: each rule with the elements."""
    await page.evaluate(script)
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        f"{each['id']}: {node['target']} {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in _GRAVE
        for node in each["nodes"]
    ]
