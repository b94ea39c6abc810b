"""docs/type-check.md has an entry for each code, and each example has the very finding it is there for."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import pytest
from grpc_tools import protoc

from handrail.analysis.check.codes import CODES
from handrail.cli.templates import findings_of
from handrail.mesh.contracts import Contracts
from handrail.v1.template_pb2 import Severity
from tests.contract.source import ROOT

PAGE = (ROOT / "docs/type-check.md").read_text()
TEMPLATE = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
PROTO = re.findall(r"^```proto\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)[0]
ENTRIES = re.findall(r"^### (HR\d{3}): (.*?)\n\n(\w+)\. (.*?)(?=^### |\Z)", PAGE, re.DOTALL | re.MULTILINE)
WITHOUT_EXAMPLE = {"HR029"}  # 201 expressions


def contracts(folder: Path, proto: str) -> Contracts:
    (folder / "shop.proto").write_text(proto)
    image = folder / "image.binpb"
    includes = [folder, ROOT / "proto", resources.files("grpc_tools") / "_proto"]
    arguments = ["protoc", *(f"-I{each}" for each in includes), "--include_imports", f"--descriptor_set_out={image}"]
    assert protoc.main([*arguments, str(folder / "shop.proto")]) == 0
    return Contracts.from_descriptor_set(image.read_bytes())


def codes(folder: Path, template: str, proto: str) -> set[str]:
    path = folder / "order.yaml"
    path.write_text(template)
    return {found.code for found in findings_of(path, contracts(folder, proto))}


def example(entry: str) -> tuple[str, str] | None:
    """The wrong and the right lines of an entry's example."""
    found = re.search(r"^```diff\n(.*?)^```", entry, re.DOTALL | re.MULTILINE)
    if found is None:
        return None
    lines = found[1].splitlines(keepends=True)
    wrong = "".join(line[1:] for line in lines if line[0] != "+")
    right = "".join(line[1:] for line in lines if line[0] != "-")
    return wrong, right


def test_the_example_is_sound(tmp_path: Path) -> None:
    assert codes(tmp_path, TEMPLATE, PROTO) == set()


def test_every_code_has_its_entry() -> None:
    severities = {Severity.SEVERITY_ERROR: "Error", Severity.SEVERITY_WARNING: "Warning"}
    assert [(code, title, severity) for code, title, severity, _ in ENTRIES] == [
        (name, code.title, severities[code.severity]) for name, code in sorted(CODES.items())
    ]
    for code, _, _, text in ENTRIES:
        assert CODES[code].remedy in text


@pytest.mark.parametrize("code, entry", [(code, text) for code, _, _, text in ENTRIES if code not in WITHOUT_EXAMPLE])
def test_an_example_has_its_finding_until_it_is_mended(code: str, entry: str, tmp_path: Path) -> None:
    lines = example(entry)
    assert lines is not None
    wrong, right = lines
    assert (TEMPLATE + PROTO).count(right) >= 1, right
    assert code in codes(tmp_path, TEMPLATE.replace(right, wrong, 1), PROTO.replace(right, wrong, 1))
