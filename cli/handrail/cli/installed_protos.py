"""Protos of installed packages: the validator's rules, Handrail's own, and those of google/type and google/rpc.

Nothing is downloaded. google/protobuf is left out: every compiler has it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.proto_source import source_of
from handrail.mesh.contracts.descriptors import KNOWN, file_proto

_IMPORT = re.compile(r"""^\s*import\s+(?:public\s+|weak\s+)?["']([^"']+)["']\s*;""", re.MULTILINE)
_OF_COMPILERS = "google/protobuf/"
_WRITTEN = "// Written by handrail contracts vendor from an installed package, without comments: do not edit.\n\n"


def known() -> bytes:
    """The files of every installation as a descriptor set: the validator's rules, Handrail's own, google/protobuf."""
    return FileDescriptorSet(file=[file_proto(file) for file in KNOWN.values()]).SerializeToString()


def google_folders() -> list[Path]:
    """The installed folders with google/type and google/rpc."""
    money = [
        file for file in metadata.files("googleapis-common-protos") or () if str(file) == "google/type/money.proto"
    ]
    return [Path(str(file.locate())).parents[2] for file in money]


def own(folder: Path) -> dict[str, Path]:
    """The protos in a folder and below, by name, without those that an installed package has, too.

    Raises CommandError with Exit.USAGE if there is none.
    """
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.proto"))}
    found = {name: path for name, path in paths.items() if not name.startswith(_OF_COMPILERS) and _source(name) is None}
    if not found:
        raise CommandError(f"{folder} contains no .proto file", Exit.USAGE)
    return found


def imported(folder: Path) -> dict[str, str]:
    """The sources of what the protos of a folder import from installed packages, by name, with what those import.

    Raises CommandError with Exit.USAGE if the folder has no proto, or if an import is neither there nor installed.
    """
    mine = own(folder)
    found: dict[str, str] = {}
    waiting = [(name, by) for by, path in mine.items() for name in _IMPORT.findall(_text(path))]
    while waiting:
        name, by = waiting.pop()
        if name in mine or name in found or name.startswith(_OF_COMPILERS):
            continue
        text = _source(name)
        if text is None:
            raise CommandError(f"{by} imports {name}: neither {folder} nor an installed package has it", Exit.USAGE)
        found[name] = text
        waiting += [(each, name) for each in _IMPORT.findall(text)]
    return dict(sorted(found.items()))


def write_protos(files: Mapping[str, str], folder: Path) -> list[Path]:
    """Writes protos by name into a folder; returns their paths. Raises CommandError if that fails."""
    written = []
    try:
        for name, text in files.items():
            path = folder / name
            if path.is_symlink() or not path.parent.resolve().is_relative_to(folder.resolve()):
                raise CommandError(f"{path} is a link, or leads out of {folder}: remove the link", Exit.USAGE)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
            written.append(path)
    except OSError as error:
        raise CommandError(f"{folder} can't be written: {error.strerror}", Exit.USAGE) from None
    return written


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"{path} can't be read: {error}", Exit.USAGE) from None


@cache
def _source(name: str) -> str | None:
    file = KNOWN.get(name)
    if file is not None:
        proto = FileDescriptorProto()
        file.CopyToProto(proto)
        return _WRITTEN + source_of(proto)
    paths = [folder / name for folder in google_folders() if name.startswith("google/")]
    return next((path.read_text("utf-8") for path in paths if path.is_file() and ".." not in path.parts), None)
