"""Every attack of this folder is refused by a running installation. `make attack` shows how."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.attacks.attack import Attack, attacks
from tests.attacks.installation import Installation, running_installation

ATTACKS = attacks()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with running_installation(tmp_path_factory.mktemp("attacked") / "shared") as target:
        yield target


def named(each: Attack) -> str:
    return f"{each.id} {each.title}"


@pytest.mark.parametrize("each", [each for each in ATTACKS if not each.fresh], ids=named)
async def test_an_attack_is_refused(shared: Installation, each: Attack) -> None:
    assert await each.run(shared), "it says how it was refused"


@pytest.mark.parametrize("each", [each for each in ATTACKS if each.fresh], ids=named)
async def test_an_attack_that_harms_its_installation_is_refused(tmp_path: Path, each: Attack) -> None:
    with running_installation(tmp_path / "fresh") as target:
        assert await each.run(target), "it says how it was refused"
