"""The check of files: compares the RECORD with the existing files, and finds unrecorded ones."""

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePosixPath

from compliance.v1.compliance_pb2 import Finding
from demos.compliance.checks.record import ALGORITHMS, BadLine, Entry, entries, is_cache, recorded
from demos.compliance.findings import Findings
from demos.compliance.installed import Environment, Installed, Unreadable

CHANGED = "FILE_CHANGED"
"""The code of a finding of tampering: an existing file that no installer wrote."""


@dataclass(slots=True)
class Inspection:
    """The result: the findings, and a fingerprint of all checked files."""

    findings: Findings = field(default_factory=Findings)
    _hashes: dict[str, str] = field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """A SHA-256, in hex, over path and SHA-256 of every file."""
        digest = hashlib.sha256()
        for path, hash_ in sorted(self._hashes.items()):
            digest.update(f"{path}\0{hash_}\n".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @property
    def changed(self) -> list[Finding]:
        """The findings of tampering."""
        return [finding for finding in self.findings.all if finding.code == CHANGED]

    def saw(self, path: str, hash_: str) -> None:
        """Adds a checked file with its hash to the fingerprint."""
        self._hashes[path] = hash_


def inspect(installed: Installed) -> Inspection:
    """Checks every file of a distribution. Files are read in blocks, so their size does not matter."""
    inspection = Inspection()
    findings, folder = inspection.findings, installed.distribution.folder
    if is_editable(installed):
        findings.failure("EDITABLE", folder, "it is an editable install: the code that runs is not recorded")
    lines: Iterable[Entry | BadLine] | None = None
    try:
        lines = entries(installed)
        if lines is None:
            findings.failure("NO_RECORD", folder, "it has no RECORD: nothing says which files are its own")
    except Unreadable as error:
        findings.failure("RECORD_UNREADABLE", f"{folder}/RECORD", str(error))
    others = _Others(installed)
    known: set[str] = set()
    for each in lines or ():
        if isinstance(each, BadLine):
            findings.failure("RECORD_LINE", f"{folder}/RECORD", f"line {each.line}: {each.reason}")
        elif each.path in known:
            findings.note("RECORDED_TWICE", each.path, "the RECORD has it twice")
        else:
            known.add(each.path)
            if not each.is_cache:
                _compare(installed, each, inspection, others)
    for path in _strangers(installed, known, others):
        if lines is not None:
            findings.failure("FILE_UNRECORDED", path, "it is in a folder of the distribution, but in no RECORD")
        inspection.saw(path, _hash_of(installed.environment, path))
    return inspection


def is_editable(installed: Installed) -> bool:
    """Whether it is an editable install: https://packaging.python.org/en/latest/specifications/direct-url/"""
    try:
        url = json.loads(installed.read("direct_url.json") or "{}")
        return bool(url["dir_info"]["editable"])
    except (Unreadable, ValueError, KeyError, TypeError, RecursionError):
        return False


class _Others:
    """The entries of all RECORDs of the environment; read when they are first needed."""

    def __init__(self, installed: Installed) -> None:
        self._environment = installed.environment
        self._owner = installed.distribution.name

    @cached_property
    def _entries(self) -> dict[str, list[tuple[str, Entry]]]:
        found: dict[str, list[tuple[str, Entry]]] = defaultdict(list)
        for each in self._environment.distributions():
            try:
                for entry in recorded(each):
                    found[entry.path].append((each.distribution.name, entry))
            except Unreadable:
                continue
        return found

    def know(self, path: str) -> bool:
        """Whether any RECORD has this file."""
        return path in self._entries

    def writer(self, path: str, file: Path) -> str:
        """Another distribution that recorded the file with this content; empty if there is none."""
        for name, entry in self._entries.get(path, ()):
            if name != self._owner and entry.algorithm in ALGORITHMS and _digest(file, entry.algorithm) == entry.digest:
                return name
        return ""


def _compare(installed: Installed, entry: Entry, inspection: Inspection, others: _Others) -> None:
    """Compares one file with its line of the RECORD."""
    findings = inspection.findings
    file = installed.environment.locate(entry.path)
    if file is None:
        findings.failure("PATH_ESCAPES", entry.path, "it leads out of the environment, so it is not checked")
        return
    if not file.exists():
        findings.failure("FILE_MISSING", entry.path, "it is recorded, but does not exist")
        return
    if not file.is_file():
        findings.failure("NOT_A_FILE", entry.path, "it is recorded as a file, but is not one")
        return
    itself = entry.is_about_itself(installed.distribution.folder)
    try:
        size, hash_ = file.stat().st_size, _digest(file, "sha256")
        inspection.saw(entry.path, hash_)
        if not entry.digest:
            if not itself:
                findings.failure("NO_HASH", entry.path, "the RECORD has no hash of it")
        elif entry.algorithm not in ALGORITHMS:
            findings.failure("WEAK_HASH", entry.path, f"the RECORD has only its {entry.algorithm} hash")
        else:
            same = hash_ if entry.algorithm == "sha256" else _digest(file, entry.algorithm)
            if same != entry.digest or entry.size not in (None, size):
                _differs(entry, size, others.writer(entry.path, file), findings)
    except OSError as error:
        findings.failure("FILE_UNREADABLE", entry.path, f"it can't be read: {error.strerror}")


def _differs(entry: Entry, size: int, writer: str, findings: Findings) -> None:
    """Reports a file that is not the installed one: another distribution overwrote it, or its origin is unknown."""
    if writer:
        findings.failure("FILE_OVERWRITTEN", entry.path, f"{writer} was installed over it, and has recorded it")
    else:
        differs = f"{size} bytes, not {entry.size}" if entry.size not in (None, size) else "its hash differs"
        findings.failure(CHANGED, entry.path, f"it is not the file that was installed: {differs}")


def _strangers(installed: Installed, known: Iterable[str], others: _Others) -> Iterator[str]:
    """The files in the distribution's folders that are in no RECORD of the environment.

    Its folders are those that contain a file of its own, with their subfolders; but not site-packages, which is shared.
    """
    known = set(known)
    site = installed.environment.site
    mine = {str(PurePosixPath(path).parent) for path in known} | {installed.distribution.folder}
    above = {str(parent) for folder in mine for parent in PurePosixPath(folder).parents}
    found = sorted(
        {
            path
            for folder in mine
            if folder != "." and not folder.startswith(("..", "/"))
            for path in _files(site, folder, pass_over=mine | above)
            if path not in known and not is_cache(path)
        }
    )
    yield from (path for path in found if not others.know(path))


def _files(site: Path, folder: str, *, pass_over: set[str]) -> Iterator[str]:
    """The files in a folder and below, without the folders in `pass_over`. Links are not followed."""
    folders = [folder]
    while folders:
        folder = folders.pop()
        try:
            inside = list(os.scandir(site / folder))
        except OSError:
            continue
        for each in inside:
            path = f"{folder}/{each.name}"
            if not each.is_dir(follow_symlinks=False):
                yield path
            elif path not in pass_over:
                folders.append(path)


def _hash_of(environment: Environment, path: str) -> str:
    """The hash of an unrecorded file, for the fingerprint; the hash of nothing if it can't be read."""
    file = environment.locate(path)
    try:
        return _digest(file, "sha256") if file is not None and file.is_file() else ""
    except OSError:
        return ""


def _digest(file: Path, algorithm: str) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, algorithm).hexdigest()
