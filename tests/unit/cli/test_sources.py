"""Which files of agents and templates have changed since the last look."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from handrail.cli.dev.sources import Sources


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A package with an agent, generated code and a template."""
    for name in ("agent.py", "v1/shop_pb2.py", "shop.yaml", "notes.txt", ".venv/lib.py", "__pycache__/agent.py"):
        file = tmp_path / "shop" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    return tmp_path / "shop"


@pytest.fixture
def sources(shop: Path) -> Sources:
    """Its files as they are."""
    return Sources([shop], [shop / "shop.yaml"])


def test_what_nobody_touched_has_not_changed(sources: Sources) -> None:
    assert (sources.changed_code(), sources.changed_templates()) == ([], [])


@pytest.mark.parametrize("name", ["agent.py", "v1/shop_pb2.py", "new.py"])
def test_code_that_was_written_has_changed_once(sources: Sources, shop: Path, name: str) -> None:
    (shop / name).write_text("22")
    assert sources.changed_code() == [shop / name]
    assert (sources.changed_code(), sources.changed_templates()) == ([], [])


def test_a_file_of_the_same_size_has_changed_by_its_time(sources: Sources, shop: Path) -> None:
    os.utime(shop / "agent.py", ns=(1, 1))
    assert sources.changed_code() == [shop / "agent.py"]


def test_code_that_was_removed_has_changed(sources: Sources, shop: Path) -> None:
    (shop / "agent.py").unlink()
    assert sources.changed_code() == [shop / "agent.py"]


def test_a_template_is_no_code(sources: Sources, shop: Path) -> None:
    (shop / "shop.yaml").write_text("22")
    assert sources.changed_code() == []
    assert sources.changed_templates() == [shop / "shop.yaml"]


@pytest.mark.parametrize("name", ["notes.txt", ".venv/lib.py", "__pycache__/agent.py"])
def test_what_is_neither_agent_nor_template_is_not_looked_at(sources: Sources, shop: Path, name: str) -> None:
    (shop / name).write_text("22")
    assert (sources.changed_code(), sources.changed_templates()) == ([], [])


def test_a_module_stands_for_its_own_file(tmp_path: Path) -> None:
    (tmp_path / "one.py").write_text("1")
    (tmp_path / "other.py").write_text("1")
    sources = Sources([tmp_path / "one.py"], [])
    (tmp_path / "other.py").write_text("22")
    assert sources.changed_code() == []
    (tmp_path / "one.py").write_text("22")
    assert sources.changed_code() == [tmp_path / "one.py"]
