"""A demo tells what happens, a line at a time."""

import logging
import time
from collections.abc import Iterable, Sequence

from handrail.mesh.printable import clean


class Story:
    """Prints lines with the seconds since it began."""

    def __init__(self) -> None:
        self._began = self._told = time.monotonic()

    @property
    def elapsed(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def silence(self) -> float:
        """Seconds since something was told."""
        return time.monotonic() - self._told

    def tell(self, text: str) -> None:
        """Print a line as it happens; what the input holds of control characters is shown, not obeyed."""
        self._told = time.monotonic()
        print(f"{self.elapsed:6.1f} s  {clean(text)}", flush=True)

    def show(self, lines: Iterable[str]) -> None:
        """Print lines without a time."""
        print("\n".join(map(clean, lines)), flush=True)


class StoryHandler(logging.Handler):
    """Has a story tell what the installation logs."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story

    def emit(self, record: logging.LogRecord) -> None:
        """Called by logging for every line."""
        self._story.tell(record.getMessage())


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with aligned columns; the first row is the heading, the first column is aligned to the left."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def line(cells: Sequence[str]) -> str:
        figures = [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return "  ".join(["", cells[0].ljust(widths[0]), *figures]).rstrip()

    heading, *rest = map(line, rows)
    return [heading, "  " + "-" * (len(heading) - 2), *rest]
