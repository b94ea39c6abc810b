"""Processes that replay flows, so that the coordinator's own process stays responsive."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import parent_process

from handrail.analysis.replay.replayer import Replayer, Span
from handrail.analysis.replay.stored import Messages
from handrail.analysis.replay.tally import Tally
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.v1.template_pb2 import StoredTemplate

MOST = 4
"""The most processes, on any number of cores: reading the stream keeps no more of them busy."""

_replayer: Replayer | None = None


class Workers:
    """Processes that share the work of one replay. Create them with `workers`."""

    def __init__(self, pool: ProcessPoolExecutor, number: int) -> None:
        self._pool = pool
        self.number = number

    async def replay(self, flows: Sequence[Messages], limit: int) -> tuple[Tally, list[bytes]]:
        """Returns the tally of some flows, and at most `limit` differences, serialized."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, _replay, flows, limit)


@contextmanager
def workers(changed: StoredTemplate, versions: Sequence[StoredTemplate], span: Span) -> Iterator[Workers]:
    """Starts processes for the time of the block. Each learns all contracts anew: it receives nothing but bytes."""
    number = max(1, min(MOST, os.cpu_count() or 1))
    given = (changed.SerializeToString(), [version.SerializeToString() for version in versions], span)
    pool = ProcessPoolExecutor(number, multiprocessing.get_context("spawn"), _prepare, given)
    try:
        for _ in range(number):
            # They learn the contracts while the first flows are read.
            pool.submit(_replay, (), 0)
        yield Workers(pool, number)
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _prepare(changed: bytes, versions: Sequence[bytes], span: Span) -> None:
    """Runs once in each process, before its first flows."""
    # Ctrl-C reaches every process of the terminal; the coordinator's process ends these.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nearly everything that a flow allocates is freed by reference counting when the flow is done.
    gc.set_threshold(100_000)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    known = [_compiled(version) for version in versions]
    global _replayer  # one per process; the pool passes no state to its tasks
    _replayer = Replayer(_compiled(changed), {template.version: template for template in known}, span)


def _replay(flows: Sequence[Messages], limit: int) -> tuple[Tally, list[bytes]]:
    assert _replayer is not None
    tally, differences = _replayer.replay(flows, limit=limit)
    return tally, [difference.SerializeToString() for difference in differences]


def _compiled(data: bytes) -> Template:
    stored = StoredTemplate.FromString(data)
    return Template.compile(stored.template, Contracts.from_descriptor_set(stored.descriptors))


def _end_with_parent() -> None:
    """Ends this process with its parent: otherwise it would wait forever for the next task of a killed parent."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
