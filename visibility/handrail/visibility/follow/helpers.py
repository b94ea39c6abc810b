"""Processes that help to fold as long as much waits. Few messages are folded without them: that costs less, and nothing
waits for another process.
"""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

from handrail.mesh.streams.catalog import Catalog
from handrail.visibility.follow.fold_processes import FoldProcesses, ProcessFailed
from handrail.visibility.follow.indexer import Indexer
from handrail.visibility.follow.load import Load

log = logging.getLogger(__name__)

_PAUSE = timedelta(minutes=1)
"""How long the process folds alone after one of them failed."""


class Helpers:
    """Starts and ends the folding processes of an indexer."""

    def __init__(self, load: Load, catalog: Catalog, indexer: Indexer) -> None:
        self._load = load
        self._catalog = catalog
        self._indexer = indexer
        self._clock = asyncio.get_running_loop().time
        self._are_there = False
        self._not_before = 0.0

    async def adjust(self, left: int) -> None:
        """Starts or ends processes: call it between two batches, with the number of messages that are left."""
        if self._are_there and not self._indexer.has_processes:
            self._are_there = False
            self._not_before = self._clock() + _PAUSE.total_seconds()
        if self._are_there and left < self._load.few:
            self._indexer.use(None)
            self._are_there = False
            log.info("the index has caught up: folding goes on in this process")
        elif left >= self._load.much and self._may_start():
            await self._start()

    def _may_start(self) -> bool:
        return self._load.processes > 0 and not self._are_there and self._clock() >= self._not_before

    async def _start(self) -> None:
        processes = FoldProcesses(self._load.processes, self._catalog, patience=self._load.patience)
        try:
            await processes.ready()
        except ProcessFailed as error:
            log.warning("%s; folding goes on in this process", error)
            processes.close()
            self._not_before = self._clock() + _PAUSE.total_seconds()
            return
        except BaseException:
            processes.close()
            raise
        self._indexer.use(processes)
        self._are_there = True
        log.info("much waits for the index: the processes %s help to fold", ", ".join(map(str, processes.ids)))
