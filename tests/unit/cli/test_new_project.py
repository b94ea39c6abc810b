"""`handrail new`: what it writes, which names it takes, and that it writes over nothing."""

from __future__ import annotations

import re
import subprocess
import sys
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
        *("gen", "secrets"),
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
    assert len(written) == len(FILES) + 1
    assert tmp_path / "loans" / "proto" / "buf" / "validate" / "validate.proto" in written
    for path in written:
        text = path.read_text()
        assert not re.search(r"\$\{?(name|version)", text), path
        assert text.endswith("\n")
    assert (tmp_path / "loans" / "proto" / "loans" / "v1" / "loans.proto") in written


@pytest.mark.parametrize("name", ["loans", "my_shop"])
def test_its_contracts_are_green_from_the_first_minute(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(name, tmp_path / name)
    monkeypatch.chdir(tmp_path / name)
    check = handrail("contracts", "check")
    assert (check.returncode, check.stderr) == (0, "")
    assert "nothing is released yet" in check.stdout
    assert "no findings" in check.stdout
    impact = handrail("contracts", "impact")
    assert (impact.returncode, impact.stderr) == (0, "")
    assert "nobody is affected" in impact.stdout
    assert "nothing is released yet" in impact.stdout


def test_released_contracts_guard_a_new_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("loans", tmp_path / "loans")
    monkeypatch.chdir(tmp_path / "loans")
    Path("gen").mkdir()
    build = ["buf", "build", "--exclude-source-info", "--output", "gen/released.binpb"]
    assert subprocess.run([Path(sys.executable).with_name("buf"), *build[1:]], check=False).returncode == 0
    assert handrail("contracts", "check").returncode == 0
    assert handrail("contracts", "impact").returncode == 0
    proto = Path("proto/loans/v1/loans.proto")
    proto.write_text(proto.read_text().replace("int64 cents = 2", "int64 cents = 3"))
    check = handrail("contracts", "check")
    assert check.returncode == 1
    assert "FIELD_NO_DELETE" in check.stdout
    impact = handrail("contracts", "impact")
    assert impact.returncode == 1
    assert "agent buyer     waits for loans.v1.Assessed in step buy" in impact.stdout


def test_protos_that_are_imported_come_beside_those_that_import_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("loans", tmp_path / "loans")
    monkeypatch.chdir(tmp_path / "loans")
    proto = Path("proto/loans/v1/loans.proto")
    imports = ("google/type/money.proto", "google/protobuf/timestamp.proto", "handrail/v1/event.proto")
    proto.write_text(proto.read_text() + "".join(f'import "{each}";\n' for each in imports))
    missing = handrail("contracts", "check", "--only", "lint")
    assert "fetch it with: make protos" in missing.stdout
    done = handrail("contracts", "vendor", "proto")
    assert (done.returncode, done.stdout, done.stderr) == (0, "4 protos written to proto\n", "")
    assert not Path("proto/google/protobuf").exists(), "buf has it"
    assert "imported file" not in handrail("contracts", "check", "--only", "lint").stdout
    assert handrail("contracts", "generate", "proto", "--out", "out").stdout.startswith("1 proto:"), "its own alone"
    proto.write_text(proto.read_text() + 'import "some/where/else.proto";\n')
    unknown = handrail("contracts", "vendor", "proto")
    assert unknown.returncode == 2
    assert unknown.stderr == (
        "handrail: loans/v1/loans.proto imports some/where/else.proto: neither proto nor an installed package has it\n"
    )


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
