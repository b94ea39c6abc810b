"""One `handrail dev` with the payments demo for each module of tests."""

from collections.abc import Iterator

import pytest

from tests.support.dev import Dev, running_dev


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dev]:
    folder = tmp_path_factory.mktemp("dev") / "data"
    with running_dev(folder, "--agents", "demos.payments") as running:
        yield running
