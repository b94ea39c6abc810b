"""The baselines that a project's contracts are compared with: a git ref, an image, or a running coordinator."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.impact import Known
from handrail.cli import git
from handrail.cli.buf import CONFIG, Buf
from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.templates import read_descriptors
from handrail.mesh.contracts import descriptors
from handrail.mesh.errors import HandrailError
from handrail.mesh.template.yaml_reader import load_yaml
from handrail.v1.template_pb2 import StoredTemplate

_TEMPLATE = re.compile(r"^starts_with\s*:", re.MULTILINE)
_SKIPPED = frozenset({"node_modules", "__pycache__"})


@dataclass(slots=True)
class Baseline:
    """Contracts to compare with, and the templates stored with them. `notes` say what was omitted."""

    contracts: ContractSet
    templates: list[Known] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def read_image(source: str) -> ContractSet:
    """Reads the contracts in an image, or of a Python module; raises CommandError with Exit.USAGE if it is neither."""
    return _parsed(read_descriptors(source), source)


def build_project() -> ContractSet:
    """Returns the contracts of the working tree, built by buf."""
    return _parsed(Buf(Path.cwd()).build(), "the project")


def at_ref(ref: str) -> Baseline:
    """Builds the project at a git ref, with the third-party protos of the working tree."""
    with tempfile.TemporaryDirectory(prefix="handrail-") as scratch:
        target = Path(scratch)
        git.extract(ref, target)
        if not (target / CONFIG).is_file():
            raise CommandError(f"{ref} has no {CONFIG}: the project is newer; name an image instead", Exit.USAGE)
        git.copy_ignored(Buf(Path.cwd()).proto_files(), target)
        try:
            contracts = _parsed(Buf(target).build(), ref)
        except CommandError as error:
            raise CommandError(f"{ref}: {error.text}", error.code) from None
        baseline = Baseline(contracts)
        baseline.templates, baseline.notes = find_templates(target, prefix=f"{ref}:")
        return baseline


def stored_contracts(stored: StoredTemplate, project: ContractSet) -> ContractSet:
    """Returns the contracts stored with a template, without Handrail's own unless the project has them itself: they
    belong to the installed version, not to the project."""
    kept = FileDescriptorSet()
    for file in FileDescriptorSet.FromString(stored.descriptors).file:
        if file.name not in descriptors.KNOWN or file.name in project.files or file.name.startswith("google/"):
            kept.file.append(file)
    return ContractSet.of(kept)


def served_contracts(client: Client) -> ContractSet | None:
    """Returns the contracts of the API that a coordinator serves through reflection; None if it serves none."""
    files = {file.name: file for file in client.reflected("handrail.")}
    for file in files.values():
        file.ClearField("source_code_info")
    return ContractSet.of(FileDescriptorSet(file=files.values())) if files else None


def find_templates(folder: Path, *, prefix: str = "") -> tuple[list[Known], list[str]]:
    """Returns the templates in a folder and below, without hidden folders and virtual environments, and notes on files
    that look like templates but can't be read."""
    found: list[Known] = []
    notes: list[str] = []
    for path in _yaml_files(folder):
        name = f"{prefix}{path.relative_to(folder)}"
        try:
            text = path.read_text("utf-8")
            if _TEMPLATE.search(text):
                found.append(Known(load_yaml(text), name))
        except HandrailError as error:
            notes.append(f"{name} is omitted: {error.text}")
        except (OSError, UnicodeDecodeError):
            continue  # not the form of a template
    return found, notes


def distinct(templates: Iterable[Known]) -> list[Known]:
    """Returns each template once, with the places it was found at; the same file of a ref is the same place."""
    places: dict[bytes, list[Known]] = {}
    for known in templates:
        places.setdefault(known.proto.SerializeToString(deterministic=True), []).append(known)
    return [Known(same[0].proto, ", ".join(_places([each.origin for each in same]))) for same in places.values()]


def _places(origins: Sequence[str]) -> list[str]:
    return [each for each in dict.fromkeys(origins) if each.partition(":")[2] not in origins]


def _yaml_files(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = sorted(
            each
            for each in folders
            if not each.startswith(".") and each not in _SKIPPED and not Path(here, each, "pyvenv.cfg").exists()
        )
        yield from (Path(here, file) for file in sorted(files) if file.endswith((".yaml", ".yml")))


def _parsed(image: bytes, source: str) -> ContractSet:
    try:
        contracts = ContractSet.parse(image)
        _ = contracts.contracts  # a descriptor set may contradict itself
    except HandrailError as error:
        raise CommandError(f"{source} is not an image of contracts: {error.text}", Exit.USAGE) from None
    if not contracts.files:
        raise CommandError(f"{source} is not an image of contracts: it holds no files of a project", Exit.USAGE)
    return contracts
