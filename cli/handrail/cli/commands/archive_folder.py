"""What the commands for archives have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from handrail.cli.exit_codes import CommandError, Exit

if TYPE_CHECKING:
    from handrail.visibility.archive.errors import Finding


def existing(folder: Path) -> Path:
    """Returns the folder of an archive; raises CommandError if it holds no segment."""
    if not any(folder.glob("*.segment")):
        raise CommandError(f"{folder} holds no segment of an archive", Exit.NOT_FOUND)
    return folder


def finding_json(finding: Finding) -> dict[str, str]:
    """Returns what is wrong, as JSON."""
    return {"kind": finding.kind.value, "file": finding.file, "where": finding.where, "text": finding.text}
