"""Processes that fold flows beside the one that reads and writes. Each has its own share of the flows, by their ids."""

from __future__ import annotations

import asyncio
import multiprocessing
import pickle
from collections.abc import Sequence
from datetime import timedelta
from multiprocessing.connection import Connection

from handrail.mesh.streams.catalog import Catalog
from handrail.v1.template_pb2 import StoredTemplate
from handrail.visibility.follow import fold_child
from handrail.visibility.follow.fold_child import Done, Work
from handrail.visibility.follow.grouping import Group
from handrail.visibility.follow.open_flows import MOST as MOST_KEPT
from handrail.visibility.index.changes import Changes

_START = timedelta(minutes=2)
"""How long a process may take to start, on a busy machine."""


class ProcessFailed(Exception):
    """A process died, or did not answer in time."""


class FoldProcesses:
    """Folding processes, which know what they folded since they were started. Close them if one fails.

    `patience` is how long one may take to fold its share of a batch.
    """

    def __init__(self, number: int, catalog: Catalog, *, patience: timedelta) -> None:
        self._catalog = catalog
        self._sent: set[tuple[str, int]] = set()
        self._children = [_Child(MOST_KEPT // number, patience) for _ in range(number)]

    @property
    def ids(self) -> list[int]:
        """The ids of the processes."""
        return [each.process.pid or 0 for each in self._children]

    async def ready(self) -> None:
        """Waits until all are ready. Raises ProcessFailed."""
        await asyncio.gather(*(asyncio.to_thread(each.receive, _START) for each in self._children))

    async def fold(self, groups: Sequence[Group]) -> Done:
        """Folds flows on; returns what changed, and the flows that have to be read. Raises ProcessFailed."""
        shares: list[list[fold_child.PlainGroup]] = [[] for _ in self._children]
        for key, messages, is_new in groups:
            shares[int(key[1][:8], 16) % len(shares)].append((key, is_new, [each[:4] for each in messages]))
        templates = self._new_templates()
        answers = await asyncio.gather(
            *(
                asyncio.to_thread(child.ask, Work(templates, share))
                for child, share in zip(self._children, shares, strict=True)
                if share or templates
            )
        )
        changes = Changes()
        for each in answers:
            changes.merge(each.changes)
        return Done(changes, [key for each in answers for key in each.left])

    def close(self) -> None:
        """Ends the processes, whatever they do."""
        for each in self._children:
            each.close()

    def _new_templates(self) -> list[bytes]:
        """The templates that became known since the last batch."""
        new = [each for each in self._catalog.all() if (each.name, each.version) not in self._sent]
        self._sent |= {(each.name, each.version) for each in new}
        return [
            StoredTemplate(template=each.proto, descriptors=each.descriptor_set).SerializeToString() for each in new
        ]


class _Child:
    """One process, and the pipe to it. Its calls wait: use threads."""

    def __init__(self, most_kept: int, patience: timedelta) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would take the broker's connection along
        self._patience = patience
        self._pipe: Connection
        self._pipe, other = context.Pipe()
        self.process = context.Process(target=fold_child.main, args=(other, most_kept), daemon=True, name="folding")
        self.process.start()
        other.close()  # so that reading ends when the process does

    def ask(self, work: Work) -> Done:
        """Has work done. Raises ProcessFailed."""
        try:
            self._pipe.send_bytes(pickle.dumps(tuple(work), pickle.HIGHEST_PROTOCOL))
        except OSError as error:
            raise self._failed("has ended") from error
        return Done(*pickle.loads(self.receive(self._patience)))  # from an own process

    def receive(self, within: timedelta) -> bytes:
        """Waits for what the process sends. Raises ProcessFailed."""
        try:
            if self._pipe.poll(within.total_seconds()):
                return self._pipe.recv_bytes()
        except (EOFError, OSError) as error:
            raise self._failed("has ended") from error
        raise self._failed(f"did not answer within {within.total_seconds():g} s")

    def close(self) -> None:
        """Ends the process."""
        self.process.kill()
        self.process.join()

    def _failed(self, what: str) -> ProcessFailed:
        return ProcessFailed(f"the folding process {self.process.pid} {what}")
