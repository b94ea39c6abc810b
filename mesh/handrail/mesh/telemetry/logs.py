"""Logs of long-running processes: lines on standard error, one for each record and for each line of a traceback."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TypeAlias

from handrail.mesh.printable import clean, clean_lines

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_ExceptionInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"


class Lines(logging.Formatter):
    """Formats records so that nothing a stranger sent moves a cursor or passes for a line of its own: a record is one
    line, and a traceback's are set in."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        return clean(super().formatMessage(record))

    def formatException(self, ei: _ExceptionInfo) -> str:
        """The lines of a traceback."""
        return _set_in(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """The lines of a stack."""
        return _set_in(super().formatStack(stack_info))


def configure(level: int | str = logging.INFO) -> None:
    """Log to standard error from this level on, and nowhere else."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _set_in(text: str) -> str:
    return "\n".join(f"  {line}" for line in clean_lines(text).split("\n"))
