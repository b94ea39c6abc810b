"""Logs of long-running processes on standard error: one line per record, and per line of a traceback."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import TypeAlias

from handrail.mesh.printable import clean, clean_lines

_FORMAT = "%(asctime)s %(levelname)s %(name)s %(message)s"
_ExceptionInfo: TypeAlias = "tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]"


class Lines(logging.Formatter):
    """Formats records safely: untrusted text can neither move the cursor nor fake a line of its own. A record is one
    line; the lines of a traceback are indented."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The record as one line."""
        return clean(super().formatMessage(record))

    def formatException(self, ei: _ExceptionInfo) -> str:
        """The traceback as indented lines."""
        return _set_in(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:
        """The stack as indented lines."""
        return _set_in(super().formatStack(stack_info))


def configure(level: int | str = logging.INFO) -> None:
    """Logs to standard error only, from this level on."""
    handler = logging.StreamHandler()
    handler.setFormatter(Lines(_FORMAT))
    logging.basicConfig(level=level, handlers=[handler], force=True)


def _set_in(text: str) -> str:
    return "\n".join(f"  {line}" for line in clean_lines(text).split("\n"))
