"""The output of commands: tables for people, JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

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
        """Prints rows in columns below headers, or `empty` without rows. Long cells are cut, and a remark says so."""
        whole = [[clean(str(cell)) for cell in row] for row in rows]
        if not whole and empty:
            print(empty)
            return
        cells = [[shortened(cell, _WIDEST) for cell in row] for row in whole]
        for line in columns([list(headers), *cells]):
            print(line)
        if cells != whole:
            self.remark(_CUT)

    def remark(self, text: str) -> None:
        """Prints a line for people on standard error, beside the output for scripts."""
        print(clean(text), file=sys.stderr, flush=True)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Prints names and values, one per line; empty values are omitted."""
        shown = [[name, clean(str(value))] for name, value in pairs if value not in ("", 0, None)]
        for line in columns(shown):
            print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Pads cells to the width of their column, except in the last column."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def time(stamp: Timestamp) -> str:
    """Formats a time in UTC to the millisecond; empty if it is not set."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    return stamp.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
