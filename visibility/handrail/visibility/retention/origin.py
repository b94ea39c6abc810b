"""Whether FLOW is the stream that an archive was made of."""

from __future__ import annotations

import asyncio

from handrail.mesh.bus import NatsBus
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.reading import is_stored
from handrail.mesh.streams.streams import created
from handrail.visibility.archive.errors import NoRecord
from handrail.visibility.archive.folder import Folder
from handrail.visibility.archive.reader import Reader
from handrail.visibility.archive.segment_file import opened, read_segment
from handrail.visibility.follow.archiver import nanoseconds
from handrail.visibility.retention.shelf import raw


class Origin:
    """Compares FLOW with an archive: when it was created, and the newest message that is sealed."""

    def __init__(self, bus: NatsBus, folder: Folder, reader: Reader) -> None:
        self._bus = bus
        self._folder = folder
        self._reader = reader

    async def is_flow(self) -> bool:
        """Whether it is FLOW, as far as can be told; False without a segment. Raises Damaged, and what reading raises.

        A message that was purged can't be compared.
        """
        info = await self._bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
        return await self._is_of(nanoseconds(created(info)), int(info["state"]["last_seq"]))

    async def _is_of(self, created_ns: int, last: int) -> bool:
        newest = await asyncio.to_thread(self._newest)
        if newest is None:
            return False
        archived_ns, mark = newest
        if archived_ns != created_ns or mark > last:
            return False
        try:
            message = raw(await asyncio.to_thread(self._reader.read, mark))
        except NoRecord:
            return True
        return await is_stored(self._bus, mark, message.time, message.body)

    def _newest(self) -> tuple[int, int] | None:
        """When the stream of the newest segment was created, and its last sequence."""
        for first in self._folder.firsts()[-1:]:
            path = self._folder.file(first)
            with opened(path) as file:
                segment = read_segment(file, path.name)
            return segment.header.stream.created_ns, segment.last
        return None
