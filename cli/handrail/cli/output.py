"""What commands print: tables for people, JSON for programs."""

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
"""Characters of a cell of a table: a longer one would push the others out of sight."""

_CUT = "handrail: … stands for text that is cut; --output json has all of it"


class Output:
    """Prints to standard output, in the form that was asked for."""

    def __init__(self, form: str) -> None:
        self.is_json = form == "json"

    def document(self, value: object) -> None:
        """One JSON document, indented."""
        print(json_text(value, indent=2))

    def line(self, value: object) -> None:
        """One JSON document on one line, at once: for streams."""
        print(json_text(value), flush=True)

    def text(self, text: str) -> None:
        """A line for people, at once; control characters are shown, not sent to the terminal."""
        print(clean(text), flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Rows below headers, in columns; `empty` where there are none. Long cells are cut, and a remark says so."""
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
        """A line for people on standard error, beside what standard output has for scripts."""
        print(clean(text), file=sys.stderr, flush=True)

    def fields(self, pairs: Iterable[tuple[str, object]]) -> None:
        """Names and values, one a line; what has no value is left out."""
        shown = [[name, clean(str(value))] for name, value in pairs if value not in ("", 0, None)]
        for line in columns(shown):
            print(line)


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells padded to the width of their column; the last one is not padded."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (_GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return [line.rstrip() for line in lines]


def time(stamp: Timestamp) -> str:
    """A time in UTC to the millisecond; empty where there is none."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    return stamp.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"
