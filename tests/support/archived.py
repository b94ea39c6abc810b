"""What an archive holds, and what it should hold."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.frame import Record
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.segment_file import opened, read_segment

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def archived(folder: Folder) -> list[Record]:
    """All messages of an archive."""
    return list(Reader(folder).iterate())


def mark(folder: Folder) -> int:
    """Up to which sequence it is sealed."""
    for first in folder.firsts()[-1:]:
        with opened(folder.file(first)) as file:
            return read_segment(file, folder.file(first).name).last
    return 0


async def stored(bus: NatsBus) -> list[Record]:
    """All messages of FLOW, as they should be archived."""
    page = await bus.read_forward(FLOW, "flow.>", from_sequence=1, limit=100_000)
    return [
        Record(each.sequence, each.subject, (each.time - EPOCH) // timedelta(microseconds=1) * 1000, b"", each.body)
        for each in page.messages
    ]
