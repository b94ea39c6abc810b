"""`handrail new`: what it writes, which names it takes, and that it writes over nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from handrail.cli.exit_codes import CommandError
from handrail.cli.project.scaffold import FILES, check_name, write
from tests.support.dev import handrail


@pytest.mark.parametrize("name", ["loans", "my_shop", "a", "x2"])
def test_a_name_that_is_one_everywhere_is_taken(tmp_path: Path, name: str) -> None:
    assert write(name, tmp_path / name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "Loans", "2nd", "_x", "my-shop", "my.shop", "a/b", "../up", "x" * 41, "lo ans", "grün", "loans\n"),
        *(
            "class",
            "match",
            "import",
            "json",
            "handrail",
            "google",
            "buf",
            "tests",
            "yaml",
            "grpc",
            "demos",
            "payments",
        ),
    ],
)
def test_a_name_that_is_none_or_taken_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(CommandError) as refused:
        check_name(name)
    assert "choose" in refused.value.text or "is not a project name" in refused.value.text


def test_every_file_is_written_and_no_placeholder_is_left(tmp_path: Path) -> None:
    written = write("loans", tmp_path / "loans")
    assert len(written) == len(FILES)
    for path in written:
        text = path.read_text()
        assert not re.search(r"\$(name|\{)", text), path
        assert text.endswith("\n")
    assert (tmp_path / "loans" / "proto" / "loans" / "v1" / "loans.proto") in written


def test_it_writes_over_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    assert handrail("new", "empty").returncode == 0
    done = handrail("new", "empty")
    assert done.returncode == 2
    assert done.stderr == "handrail: empty exists already and is not an empty folder\n"
    (tmp_path / "file").write_text("mine")
    assert handrail("new", "file").returncode == 2
    assert (tmp_path / "file").read_text() == "mine"


def test_protos_that_are_none_are_told_with_their_place(tmp_path: Path) -> None:
    nothing = handrail("contracts", "generate", tmp_path, "--out", tmp_path / "out")
    assert nothing.returncode == 2
    assert "contains no .proto file" in nothing.stderr
    (tmp_path / "bad.proto").write_text('syntax = "proto3";\nmessage X { Unknown u = 1; }\n')
    bad = handrail("contracts", "generate", tmp_path, "--out", tmp_path / "out")
    assert bad.returncode == 1
    assert 'bad.proto:2:13: "Unknown" is not defined' in bad.stderr


def test_protos_may_import_what_is_installed(tmp_path: Path) -> None:
    imports = ("buf/validate/validate", "google/type/money", "google/protobuf/timestamp", "handrail/v1/event")
    fields = "google.type.Money a = 1 [(buf.validate.field).required = true]; google.protobuf.Timestamp b = 2; "
    fields += "handrail.v1.Event c = 3;"
    (tmp_path / "all.proto").write_text(
        'syntax = "proto3";\n'
        + "".join(f'import "{each}.proto";\n' for each in imports)
        + f"message X {{ {fields} }}\n"
    )
    done = handrail("contracts", "generate", tmp_path, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "all_pb2.py").exists()
