"""What commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC
from typing import TypeAlias

from google.protobuf.timestamp_pb2 import Timestamp

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""A JSON value."""

_GAP = "  "


class Output:
    """Prints to standard output, in the form that was asked for."""

    def __init__(self, form: str) -> None:
        self.is_json = form == "json"

    def document(self, value: object) -> None:
        """One JSON document, indented."""
        print(json.dumps(value, ensure_ascii=False, indent=2))

    def line(self, value: object) -> None:
        """One JSON document on one line, at once: for streams."""
        print(json.dumps(value, ensure_ascii=False), flush=True)

    def text(self, text: str) -> None:
        """A line for people, at once; control characters are shown, not sent to the terminal."""
        print(clean(text), flush=True)

    def table(self, headers: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str = "") -> None:
        """Rows below headers, in columns; `empty` where there are none."""
        cells = [[clean(str(cell)) for cell in row] for row in rows]
        if not cells and empty:
            print(empty)
            return
        for line in columns([list(headers), *cells]):
            print(line)

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


def clean(text: str) -> str:
    """Text from elsewhere, safe for a terminal: control characters and line ends come as escapes."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def time(stamp: Timestamp) -> str:
    """A time in UTC to the millisecond; empty where there is none."""
    if not stamp.seconds and not stamp.nanos:
        return ""
    return stamp.ToDatetime(UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + "Z"


def cut(text: str, length: int) -> str:
    """Text that is no longer than this."""
    return text if len(text) <= length else text[: length - 1] + "…"
