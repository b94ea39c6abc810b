"""What a broker has in memory: what the kernel counts, and what its Go heap says of itself."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

_PAGE = 4096
_STATISTIC = re.compile(rb"^# (\w+) = (\d+)$", re.MULTILINE)
_SECONDS = 60


class Memory(NamedTuple):
    """In MB: resident; in use on the heap, garbage included; and the heap at which Go collects garbage next. With
    `GOGC=100`, the default, that is twice what was alive after the last collection.
    """

    resident: float
    heap: float
    goal: float


class Meter:
    """Reads the memory of a broker that runs on this machine, with `configuration(port)` in its configuration."""

    def __init__(self, pid: int, port: int) -> None:
        self._pid = pid
        self._port = port

    async def read(self) -> Memory:
        """What it has now."""
        return await asyncio.to_thread(self._read)

    def _read(self) -> Memory:
        with urlopen(f"http://127.0.0.1:{self._port}/debug/pprof/heap?debug=1", timeout=_SECONDS) as answer:
            said = {name: int(value) for name, value in _STATISTIC.findall(answer.read())}
        pages = int(Path(f"/proc/{self._pid}/statm").read_text().split()[1])
        return Memory(pages * _PAGE / 1e6, said[b"HeapInuse"] / 1e6, said[b"NextGC"] / 1e6)


def configuration(port: int) -> str:
    """Has the broker tell of its memory on this port."""
    return f"prof_port: {port}"
