"""Copies of installed distributions in a separate environment, to tamper with; the originals stay unchanged."""

import base64
import csv
import hashlib
import io
import shutil
from collections.abc import Iterable
from pathlib import Path

from demos.compliance.checks.record import Entry, recorded
from demos.compliance.checks.requirements import needed_here
from demos.compliance.installed import Environment, Installed

LARGEST = 80
"""The largest number of files of a distribution that is copied."""

CHANGE = b"\n# A line that was not there when it was installed.\n"


def can_be_copied(installed: Installed) -> bool:
    """Whether a copy would be complete: it is small, entirely in site-packages, and needs nothing else."""
    entries = [entry for entry in recorded(installed) if not entry.is_cache]
    inside = all(not entry.path.startswith(("/", "..")) for entry in entries)
    alone = not any(needed_here(str(line)) for line in installed.metadata().get_all("Requires-Dist") or ())
    return inside and alone and len(entries) <= LARGEST and any(map(_is_code, entries))


def copy(installed: Installed, to: Environment) -> Installed:
    """Copies a distribution with its RECORD, file by file.

    Raises:
        OSError: if a file can't be read or written.
    """
    for entry in recorded(installed):
        if not entry.is_cache:
            target = to.site / entry.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(installed.environment.site / entry.path, target)
    copied = to.at(installed.distribution.folder)
    assert copied is not None
    return copied


def tamper(installed: Installed, *, rewrite_record: bool) -> str:
    """Adds a line to a module of the distribution; returns the module.

    With `rewrite_record`, the RECORD is changed to match the files again.
    """
    entries = recorded(installed)
    changed = min((entry.path for entry in entries if _is_code(entry)), key=lambda path: (path.count("/"), path))
    file = installed.environment.site / changed
    with file.open("ab") as content:
        content.write(CHANGE)
    if rewrite_record:
        _write_record(installed.folder / "RECORD", entries, changed, file.read_bytes())
    return changed


def _is_code(entry: Entry) -> bool:
    return entry.path.endswith(".py") and bool(entry.digest)


def _write_record(record: Path, entries: Iterable[Entry], changed: str, content: bytes) -> None:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    for entry in entries:
        if entry.path == changed:
            writer.writerow([changed, f"sha256={_encoded(hashlib.sha256(content).digest())}", len(content)])
        else:
            hash_ = f"{entry.algorithm}={_encoded(bytes.fromhex(entry.digest))}" if entry.digest else ""
            writer.writerow([entry.path, hash_, "" if entry.size is None else entry.size])
    record.write_text(text.getvalue(), "utf-8")


def _encoded(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
