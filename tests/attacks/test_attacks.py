"""Every attack of this folder is refused by a running installation. `make attack` shows how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.attack import Attack, attacks
from tests.attacks.installation import Installation, running_installation


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_installation(tmp_path_factory.mktemp("attacked") / "shared") as target:
        yield target


@pytest.fixture
def target(each: Attack, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    """The installation of all attacks, or one of its own for an attack that harms it."""
    if not each.fresh:
        yield request.getfixturevalue("shared")
        return
    with running_installation(tmp_path / "fresh") as made:
        yield made


@pytest.mark.parametrize("each", attacks(), ids=lambda each: f"{each.id} {each.title}")
async def test_an_attack_is_refused(target: Installation, each: Attack) -> None:
    assert await each.run(target), "it says how it was refused"
