"""How far the flows of an archive's verdicts are purged: a number in a file beside the verdicts."""

from __future__ import annotations

import os
from pathlib import Path

from handrail.visibility.archive.errors import CannotWrite, Damaged, Finding, Kind
from handrail.visibility.archive.folder import LockedFolder

_NAME = "purged"


class PurgeMark:
    """Up to `number`, the flow of each verdict is purged, or its verdict is withdrawn. 0 without the file.

    A mark that is too low costs a look at each flow behind it, and nothing else. Raises Damaged.
    """

    def __init__(self, folder: LockedFolder) -> None:
        self._folder = folder
        self.number = _read(folder.path / _NAME)

    def move(self, number: int) -> None:
        """Stores the mark on the disk. Raises CannotWrite: then it is as it was, or moved."""
        path = self._folder.path / _NAME
        part, text = path.with_name(f"{_NAME}.part"), f"{number}\n"
        try:
            with part.open("w", encoding="ascii") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
        except OSError as error:
            why = error.strerror or str(error)
            raise CannotWrite(self._folder.path, file=path.name, size=len(text), why=why) from error
        self.number = number


def _read(path: Path) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        return 0
    except (OSError, ValueError) as error:
        text = f"it should hold a number ({error}). Remove it: then each flow with a verdict is looked at again"
        raise Damaged(Finding(Kind.UNREADABLE, path.name, "the file", text)) from error
