"""The switch that writes what the stories show into their files."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rewrite", action="store_true", help="write what the stories show into their files")


@pytest.fixture
def rewrite(request: pytest.FixtureRequest) -> bool:
    """Whether the stories are to be written anew."""
    return bool(request.config.getoption("--rewrite", default=False))
