"""Files that the command reads and writes: private ones, templates, packages of agents."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.struct_pb2 import Struct

from handrail.cli.dev.package import load_package, merged
from handrail.cli.dev.processes import Child, StartError, wait_until
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.private_files import write_private
from handrail.cli.templates import read_contracts, read_template
from handrail.mesh.contracts import descriptor_set_for
from payments.v1.payments_pb2 import ChargebackReceived

ROOT = Path(__file__).parents[3]
REFUND = ROOT / "agents" / "demos" / "payments" / "refund.yaml"


def test_a_private_file_is_its_owners_alone_even_where_another_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "secret"
    write_private(path, "one")
    path.chmod(0o644)
    write_private(path, "two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [each.name for each in path.parent.iterdir()] == ["secret"]


def test_files_that_are_not_what_they_should_be_are_named(tmp_path: Path) -> None:
    none, binary = tmp_path / "none", tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    for path in (none, binary):
        with pytest.raises(CommandError, match=str(path)) as bad_template:
            read_template(path)
        assert bad_template.value.code is Exit.USAGE
    for path, code in ((none, Exit.USAGE), (binary, Exit.FAILED)):
        with pytest.raises(CommandError, match=str(path)) as bad_image:
            read_contracts(str(path))
        assert bad_image.value.code is code


def test_contracts_come_from_an_image_or_from_a_module(tmp_path: Path) -> None:
    image = tmp_path / "payments.binpb"
    image.write_bytes(descriptor_set_for([ChargebackReceived]))
    for source in (str(image), "demos.payments"):
        assert read_contracts(source).knows("payments.v1.ChargebackReceived")
    for source in ("no.such.module", "json"):
        with pytest.raises(CommandError, match=source) as error:
            read_contracts(source)
        assert error.value.code is Exit.USAGE


def package(monkeypatch: pytest.MonkeyPatch, name: str, **declared: Any) -> str:
    module = ModuleType(name)
    vars(module).update({"AGENTS": {}, "TEMPLATES": (), "MESSAGES": (), **declared})
    monkeypatch.setitem(sys.modules, name, module)
    return name


def test_packages_are_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    one = package(monkeypatch, "one", AGENTS={"a": "one:a"}, TEMPLATES=(REFUND,), MESSAGES=(Struct,))
    two = package(monkeypatch, "two", AGENTS={"b": "two:b"}, MESSAGES=(FileDescriptorSet, Struct))
    both = merged([load_package(one), load_package(two)])
    assert both.agents == {"a": "one:a", "b": "two:b"}
    assert [template.name for template in both.templates] == ["refund"]
    assert both.roles == {"finance"}
    files = [file.name for file in FileDescriptorSet.FromString(both.descriptors).file]
    assert len(files) == len(set(files))
    assert merged([]).agents == {}


def test_two_packages_do_not_share_an_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    one = package(monkeypatch, "one", AGENTS={"a": "one:a"})
    two = package(monkeypatch, "two", AGENTS={"a": "two:a"})
    with pytest.raises(StartError, match="agent named a"):
        merged([load_package(one), load_package(two)])


@pytest.mark.parametrize(
    "declared", [{"AGENTS": ["a"]}, {"TEMPLATES": ["x"]}, {"MESSAGES": (1,)}, {"MESSAGES": (int,)}], ids=str
)
def test_a_package_that_declares_something_else_is_refused(
    monkeypatch: pytest.MonkeyPatch, declared: dict[str, Any]
) -> None:
    with pytest.raises(StartError, match="odd"):
        load_package(package(monkeypatch, "odd", **declared))


def test_of_a_process_that_ended_only_its_own_last_words_are_told(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "child.log"
    log.parent.mkdir()
    log.write_text("what was said before\n")
    child = Child("child", [sys.executable, "-c", "import os; print('this is', os.getpid())"], log=log)
    for _ in range(2):
        child.start()
        with pytest.raises(StartError) as ended:
            wait_until(lambda: False, child, seconds=30)
        assert str(ended.value) == f"child ended at once: this is {child.pid} (log: {log})"
    silent = Child("silent", [sys.executable, "-c", ""], log=log)
    silent.start()
    assert silent.ended_within(30)
    assert silent.last_words() == "it wrote nothing"
