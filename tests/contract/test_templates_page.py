"""docs/templates.md has the fields of a template as its contract has them, and its example is one."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from docs.template_fields import PAGE, page
from handrail.cli.project.scaffold import write
from tests.support.dev import HANDRAIL, environment, handrail


def test_the_fields_on_the_page_are_those_of_the_contract() -> None:
    text = PAGE.read_text("utf-8")
    assert text == page(text), "python -m docs.template_fields writes them anew"


def test_a_field_that_changes_is_noticed() -> None:
    text = PAGE.read_text("utf-8")
    changed = text.replace("| `deadline` | duration, required |", "| `deadline` | duration |")
    assert changed != text
    assert page(changed) == text
    with pytest.raises(ValueError, match="begin and end"):
        page(text.replace("<!-- end of fields -->", ""))


def test_the_example_on_the_page_passes_the_check(tmp_path: Path) -> None:
    write("loans", tmp_path / "loans")
    assert handrail("contracts", "generate", tmp_path / "loans/proto", "--out", tmp_path / "loans").returncode == 0
    [example] = re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "loans" / "page.yaml").write_text(example)
    command = [*HANDRAIL, "template", "check", "--strict", "page.yaml", "--contracts", "loans"]
    done = subprocess.run(
        command, cwd=tmp_path / "loans", env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
