"""The output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

from handrail.cli import terminal
from handrail.cli.terminal import Id, Moment
from handrail.mesh.printable import clean, json_text, shortened

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value."""

_GAP = "  "
_WIDEST = 160
"""The most characters in a table cell: a longer one would push the others out of sight."""

_CUT = "handrail: … marks text that was cut; --output json shows all of it"


class Output:
    """Prints to standard output, in the requested form."""

    def __init__(self, form: str) -> None:
        self.is_json = form == "json"

    def document(self, value: object) -> None:
        """Prints one JSON document, indented."""
        print(json_text(value, indent=2))

    def line(self, value: object) -> None:
        """Prints one JSON document on one line, at once: for streams."""
        print(json_text(value), flush=True)

    def text(self, text: str) -> None:
        """Prints a line for people, at once; control characters are shown as escapes, not sent to the terminal."""
        print(clean(text), flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Prints rows in columns below headers, or `empty` without rows. Long cells are cut, and a remark says so.

        On a terminal the table fits its width, with short ids, relative times and colours.
        """
        whole = [[_cell(cell) for cell in row] for row in rows]
        if not whole and empty:
            print(empty)
            return
        if terminal.is_terminal():
            lines = terminal.table(headers, whole)
            is_cut = any("…" in line for line in lines)
        else:
            cells = [[shortened(cell, _WIDEST) for cell in row] for row in whole]
            lines, is_cut = columns([list(headers), *cells]), cells != whole
        for line in lines:
            print(line)
        if is_cut:
            self.remark(_CUT)

    def remark(self, text: str) -> None:
        """Prints a line for people on standard error, beside the output for scripts."""
        print(clean(text), file=sys.stderr, flush=True)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Prints names and values, one per line; empty values are omitted. On a terminal, times say how long ago."""
        shown = [[name, _field(value)] for name, value in pairs if value not in ("", 0, None)]
        for line in columns(shown):
            print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads cells to the width of their column, except in the last column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def time(stamp: Timestamp) -> str:
    """Formats a time in UTC to the millisecond; empty if it is not set. A table on a terminal says how long ago."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    moment = stamp.ToDatetime(UTC)
    return Moment.of(moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z", moment)


def _cell(value: object) -> str:
    return value if isinstance(value, Moment) else Id(clean(value)) if isinstance(value, Id) else clean(str(value))


def _field(value: object) -> str:
    if isinstance(value, Moment) and terminal.is_terminal():
        return f"{value} ({terminal.relative(value.time, datetime.now(UTC))})"
    return clean(str(value))
