"""Tables on a terminal: fitted to its width, with short ids, relative times and colours. Pure, but for its size."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

_FEWEST_DIGITS = 12
"""The fewest digits of an id that are shown: as many as the time in an id that begins with one."""

_ALL_DIGITS = 32
_HEX_ID = re.compile(r"[0-9a-f]{32}")
_NARROWEST = 8
_GAP = "  "

_COLOURS = {
    **dict.fromkeys(("COMPLETED", "DONE", "APPROVED", "CONFIRMED"), "32"),
    **dict.fromkeys(("FAILED", "ESCALATED", "REJECTED", "UNDO_FAILED"), "31"),
    **dict.fromkeys(("WAITING_APPROVAL", "PENDING", "BACKOFF", "COMPENSATING", "HALTED"), "33"),
    **dict.fromkeys(("COMPENSATED", "CANCELLED", "UNDONE", "ABANDONED", "WITHDRAWN", "EXPIRED"), "2"),
}
"""The colours of statuses: what is well, what needs a person, what waits, what is over."""

_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


class Moment(str):
    """A time as text; on a terminal it is shown as how long ago it was."""

    __slots__ = ("time",)
    time: datetime

    @classmethod
    def of(cls, text: str, time: datetime) -> Moment:
        """Returns the text of a time."""
        made = cls(text)
        made.time = time
        return made


class Id(str):
    """The id of a flow or an approval; on a terminal the first digits are shown, which commands take for the whole."""

    __slots__ = ()


def is_terminal() -> bool:
    """Tells whether people see the standard output as it is printed."""
    return sys.stdout.isatty()


def table(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns the lines of a table. Its cells are printable already."""
    import shutil  # brings archives, which a table needs on a terminal alone

    now = datetime.now(UTC)
    cells = [[relative(cell.time, now) if isinstance(cell, Moment) else cell for cell in row] for row in rows]
    whole, width = [list(headers), *cells], shutil.get_terminal_size().columns
    if sum(_widths(whole)) + len(_GAP) * (len(headers) - 1) > width:
        whole = _with_short_ids(whole)
    widths = _fitted(_widths(whole), width - len(_GAP) * (len(headers) - 1))
    paint = has_colours()
    lines = [_line(row, widths, paint=paint) for row in whole]
    return [f"\x1b[1m{lines[0]}\x1b[0m", *lines[1:]] if paint else lines


def relative(time: datetime, now: datetime) -> str:
    """Says how far a time is from now: `3 min ago`, `in 2 h`."""
    seconds = (now - time) / timedelta(seconds=1)
    size, unit = next((each for each in _UNITS if abs(seconds) >= each[0]), (1, "s"))
    count = int(abs(seconds) // size)
    if not count:
        return "now"
    return f"{count} {unit} ago" if seconds > 0 else f"in {count} {unit}"


def has_colours() -> bool:
    """Tells whether colours are wanted: on a terminal that has them, unless NO_COLOR is set."""
    return is_terminal() and not os.environ.get("NO_COLOR") and os.environ.get("TERM", "dumb") != "dumb"


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _with_short_ids(rows: Sequence[Sequence[str]]) -> list[list[str]]:
    """Cuts all ids at the same length, at which they still differ."""
    ids = {cell for row in rows for cell in row if isinstance(cell, Id)}
    lengths = range(_FEWEST_DIGITS, _ALL_DIGITS + 1)
    length = next(each for each in lengths if len({_short(cell, each) for cell in ids}) == len(ids))
    return [[_short(cell, length) if isinstance(cell, Id) else cell for cell in row] for row in rows]


def _short(cell: str, length: int) -> str:
    return _HEX_ID.sub(lambda found: found[0][:length], cell)


def _fitted(widths: list[int], width: int) -> list[int]:
    """Narrows the widest columns until all fit, or none can be narrower."""
    fitted = list(widths)
    while sum(fitted) > width and max(fitted) > _NARROWEST:
        fitted[fitted.index(max(fitted))] -= 1
    return fitted


def _line(row: Sequence[str], widths: Sequence[int], *, paint: bool) -> str:
    cells = [_cut(cell, width).ljust(width) for cell, width in zip(row, widths, strict=True)]
    cells[-1] = cells[-1].rstrip()
    return _GAP.join(map(_painted, cells) if paint else cells).rstrip()


def _cut(cell: str, width: int) -> str:
    return cell if len(cell) <= width else cell[: width - 1] + "…"


def _painted(cell: str) -> str:
    colour = _COLOURS.get(cell.rstrip())
    return f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell
