"""Tells every story under tests/scenarios and compares what it shows with what the file says.

`pytest tests/scenarios --rewrite` writes what is shown into the files: read the difference before you commit it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.story import Story

STORIES = sorted(Path(__file__).parent.glob("*.txt"))

_RULE = "----"


def retold(text: str) -> Iterator[str]:
    """The lines of a story with what it shows now in place of what it says; the rest as it is."""
    story = Story()
    lines = iter(text.splitlines())
    for line in lines:
        yield line
        if not line or line.startswith("#"):
            continue
        assert next(lines, None) == _RULE, f'after "{line}" comes {_RULE}'
        yield _RULE
        yield from story.tell(line).splitlines()
        yield ""
        for _ in iter(lambda: next(lines, ""), ""):
            """What the file says so far, up to an empty line."""


@pytest.mark.parametrize("path", STORIES, ids=lambda path: path.stem)
def test_p4_p7_the_story_goes_as_written(path: Path, rewrite: bool) -> None:
    said = path.read_text()
    shown = "\n".join(retold(said)).rstrip("\n") + "\n"
    if rewrite:
        path.write_text(shown)
        return
    assert shown == said, f"{path.name} goes another way; see the difference, or run pytest with --rewrite"


def test_there_are_stories() -> None:
    assert len(STORIES) > 20
