"""Copies of installed distributions in an environment of their own, to tamper with; what was copied stays as it is."""

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
"""Files that a distribution may have, for it to be copied."""

CHANGE = b"\n# A line that was not there when it was installed.\n"


def can_be_copied(installed: Installed) -> bool:
    """Whether a copy of it would be whole: it is small, all in site-packages, and needs nothing else."""
    entries = [entry for entry in recorded(installed) if not entry.is_cache]
    inside = all(not entry.path.startswith(("/", "..")) for entry in entries)
    alone = not any(needed_here(str(line)) for line in installed.metadata().get_all("Requires-Dist") or ())
    return inside and alone and len(entries) <= LARGEST and any(map(_is_code, entries))


def copy(installed: Installed, to: Environment) -> Installed:
    """Copy a distribution with its RECORD, file by file.

    Raises:
        OSError: where a file can't be read or written.
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
    """Add a line to one of its modules; returns which.

    With `rewrite_record` its RECORD is made to fit, so that the files agree with it again.
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
