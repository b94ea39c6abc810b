"""Fixtures of the contract tests."""

from pathlib import Path

import pytest

from tests.contract.scratch import copy_contracts


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return copy_contracts(tmp_path)
