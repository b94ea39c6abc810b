"""A process that folds flows: it takes messages over a pipe, and gives back what changed, until the pipe is closed."""

from __future__ import annotations

import pickle
import signal
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import NamedTuple

from handrail.mesh import collector
from handrail.mesh.bus import RawMessage
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.v1.template_pb2 import StoredTemplate
from handrail.visibility.follow.folding import Folding
from handrail.visibility.follow.open_flows import FlowKey, OpenFlows
from handrail.visibility.index.changes import Changes

PlainGroup = tuple[FlowKey, bool, Sequence[tuple[object, ...]]]
"""A `Group` without its classes, which would take longer to send."""


class Work(NamedTuple):
    """A share of a batch, and the templates (StoredTemplate) that the process does not have yet."""

    templates: Sequence[bytes]
    groups: Sequence[PlainGroup]


class Done(NamedTuple):
    """What changed, and the flows that have to be read."""

    changes: Changes
    left: Sequence[FlowKey]


def main(pipe: Connection, most: int) -> None:
    """Folds until the pipe is closed, also by the death of the other side. Keeps flows of at most so many messages."""
    # A terminal or a service manager signals every process; the parent says when this one ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    templates: dict[tuple[str, int], Template] = {}
    folding = Folding(lambda name, version: templates.get((name, version)), OpenFlows(most))
    collector.calm()
    try:
        pipe.send_bytes(b"")
        while True:
            work = Work(*pickle.loads(pipe.recv_bytes()))  # from the parent alone
            for each in map(_compiled, work.templates):
                templates[each.name, each.version] = each
            left = [key for key, is_new, some in work.groups if not folding.take(key, _messages(some), is_new=is_new)]
            pipe.send_bytes(pickle.dumps((folding.taken(), left), pickle.HIGHEST_PROTOCOL))
    except (EOFError, OSError):
        return


def _messages(plain: Sequence[tuple[object, ...]]) -> list[RawMessage]:
    return [RawMessage(*each) for each in plain]  # type: ignore[arg-type]


def _compiled(data: bytes) -> Template:
    stored = StoredTemplate.FromString(data)
    return Template.compile(stored.template, Contracts.from_descriptor_set(stored.descriptors))
