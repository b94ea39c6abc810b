"""The flows that commands printed lately, so that the first digits of an id are enough where no index can be asked.

One file for each coordinator address, with a line for each flow: its id and its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from handrail.cli.exit_codes import CommandError
from handrail.cli.private_files import write_private
from handrail.cli.user_folders import file_name, state_folder

_MOST = 500
_LINE = re.compile(r"([0-9a-f]{32}) ([a-z][a-z0-9_-]{0,62})")


class RecentFlow(NamedTuple):
    """A flow that was printed."""

    flow_id: str
    flow_type: str


class RecentFlows:
    """Those of one address, the newest first. A file that can't be read or written is as good as none: it only saves
    typing.
    """

    def __init__(self, address: str) -> None:
        self._path: Path | None = None
        with suppress(CommandError):
            self._path = state_folder() / "recent-flows" / file_name(address)

    def read(self) -> list[RecentFlow]:
        """Returns what was printed."""
        if self._path is None:
            return []
        with suppress(OSError, UnicodeDecodeError):
            found = map(_LINE.fullmatch, self._path.read_text("utf-8").splitlines())
            return [RecentFlow(*line.groups()) for line in found if line is not None]
        return []

    def add(self, flows: Iterable[RecentFlow]) -> None:
        """Remembers flows that are being printed."""
        if self._path is None:
            return
        known = self.read()
        merged = list(dict.fromkeys([*flows, *known]))[:_MOST]
        if merged != known:
            with suppress(OSError):
                write_private(self._path, "".join(f"{each.flow_id} {each.flow_type}\n" for each in merged))
