"""Runs questions against one state of the index: few at a time, and none longer than its caller waits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.visibility.index.database import Position, read_position
from handrail.visibility.index.errors import index_error, said_by
from handrail.visibility.retention.shelf_mark import ShelfMark
from handrail.visibility.serve.turn import Turn

log = logging.getLogger(__name__)

AT_ONCE = 4
"""How many questions the database works on at the same time."""

_LONGEST = timedelta(seconds=10)

_INTERRUPTED = "interrupted"
_CANCELLED = "57014"

Answer = TypeVar("Answer")
Question = Callable[[Connection, Position], Answer]
"""Reads the index, whose state is the one of the position."""


class Snapshots:
    """Answers questions in threads of its own."""

    def __init__(self, engine: Engine, mark: ShelfMark | None = None, *, at_once: int = AT_ONCE) -> None:
        self._engine = engine
        self._mark = mark
        self._threads = ThreadPoolExecutor(at_once, thread_name_prefix="index")
        self._turns: set[Turn] = set()

    async def ask(self, question: Question[Answer], patience: timedelta) -> Answer:
        """Returns the answer.

        Raises INDEX_UNAVAILABLE if the database can't be read, has no index yet, or one that lacks archived flows, and
        DEADLINE_EXCEEDED after `patience`, waiting for a thread included. Whoever is cancelled ends the question, too.
        """
        loop, turn = asyncio.get_running_loop(), Turn(min(patience, _LONGEST))
        self._turns.add(turn)
        try:
            return await loop.run_in_executor(self._threads, self._answer, question, turn)
        except asyncio.CancelledError:
            loop.run_in_executor(None, turn.end)
            raise
        finally:
            self._turns.discard(turn)

    def close(self) -> None:
        """Ends all questions, and waits for the threads."""
        for turn in list(self._turns):
            turn.end()
        self._threads.shutdown(cancel_futures=True)

    def _answer(self, question: Question[Answer], turn: Turn) -> Answer:
        if turn.is_over():
            raise _too_slow()
        try:
            with self._engine.connect() as connection, turn.bounding(connection):
                position = read_position(connection)
                if position is None:
                    raise index_error("the index is being made; ask again shortly")
                if self._mark is not None and not self._mark.has_all(position.verdicts):
                    text = f"archived flows are still being taken into the index, {position.verdicts} are; ask later"
                    raise index_error(text)
                return question(connection, position)
        except SQLAlchemyError as error:
            if _is_interrupted(error):
                raise _too_slow() from None
            log.warning("the database of the index can't be read: %s", said_by(error))
            raise index_error("it can't be read; the log of visibility says why") from error


def _is_interrupted(error: SQLAlchemyError) -> bool:
    said = error.orig if isinstance(error, DBAPIError) else None
    return str(said) == _INTERRUPTED or getattr(said, "sqlstate", None) == _CANCELLED


def _too_slow() -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
        "the index is too slow for this filter: name a status, a flow type or a time (docs/filters.md, What is fast)",
    )
