"""The story: a demo prints what happens, line by line."""

import logging
import time
from collections.abc import Iterable, Sequence

from handrail.mesh.printable import clean


class Story:
    """Prints lines with the seconds since the beginning."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def silence(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self._told

    def tell(self, text: str) -> None:
        """Prints a line with the time; control characters of the input are shown as escapes."""
        self._told = time.monotonic()
        print(f"{self.elapsed:6.1f} s  {clean(text)}", flush=True)

    def show(self, lines: Iterable[str]) -> None:
        """Prints lines without a time."""
        print("\n".join(map(clean, lines)), flush=True)


class StoryHandler(logging.Handler):
    """Adds the installation's log lines to a story."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a log record; `logging` calls it."""
        self._story.tell(record.getMessage())


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Formats rows as lines with aligned columns; the first row is the heading, the first column is left-aligned."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(["", cells[0].ljust(widths[0]), *figures]).rstrip()

    heading, *rest = map(line, rows)
    return [heading, "  " + "-" * (len(heading) - 2), *rest]
