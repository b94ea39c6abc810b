"""What became of an archived flow, as the release that archived it judged. Pure: bytes in, bytes out.

It is stored before the flow is purged from the stream. A later release shows it, and does not judge again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import accumulate, pairwise

from handrail.mesh.instants import from_micros, micros
from handrail.visibility.archive.errors import Damaged, Finding, Kind

TIMES = frozenset({"started", "updated", "ended", "deadline", "stuck_since"})
"""The fields of a summary that are times."""

PERSONAL = ("requester", "reason", "key")
"""The fields of a summary that are a stranger's words."""

_ADDED = {"key": ""}
"""The fields of a summary that verdicts of earlier releases lack."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The flow's messages by their `sequences`, in order; a `summary` of the flow as the index shows it; why each void
    message does not count; and the release that judged. Once it is erased, its messages are nowhere. It is withdrawn if
    the flow went on before it was purged: then the flow is in the stream, and may get another verdict later.
    """

    sequences: tuple[int, ...]
    summary: Mapping[str, object]
    void: Mapping[int, str]
    release: str
    erased: bool = False
    withdrawn: bool = False

    @property
    def flow_type(self) -> str:
        """The flow's type."""
        return str(self.summary["flow_type"])

    @property
    def flow_id(self) -> str:
        """The flow's id."""
        return str(self.summary["flow_id"])

    @property
    def first(self) -> int:
        """The position of the flow's first event, which names the flow. Other messages may have come before it."""
        first = self.summary["first_sequence"]
        assert isinstance(first, int)
        return first

    def as_withdrawn(self) -> Verdict:
        """Returns what is stored once the flow is found to have gone on."""
        return replace(self, withdrawn=True)

    def as_erased(self) -> Verdict:
        """Returns what may stay of it once the flow's messages are erased."""
        void = dict.fromkeys(self.void, "")
        return replace(self, summary={**self.summary, **dict.fromkeys(PERSONAL, "")}, void=void, erased=True)


def encode(verdicts: Sequence[Verdict]) -> bytes:
    """Writes verdicts as lines of JSON."""
    return b"".join(json.dumps(_fields(each), separators=(",", ":")).encode() + b"\n" for each in verdicts)


def decode(text: bytes, *, file: str, where: str) -> list[Verdict]:
    """Reads what `encode` wrote. Raises Damaged, which names the file and the place."""
    try:
        return [_verdict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(Finding(Kind.MALFORMED, file, where, f"a field is missing or wrong ({error})")) from error


def _fields(verdict: Verdict) -> dict[str, object]:
    sequences = (0, *verdict.sequences)
    return {
        "sequences": [after - before for before, after in pairwise(sequences)],
        "summary": {name: _plain(value) for name, value in verdict.summary.items()},
        "void": {str(sequence): text for sequence, text in verdict.void.items()},
        "release": verdict.release,
        "erased": verdict.erased,
        "withdrawn": verdict.withdrawn,
    }


def _verdict(fields: dict[str, dict[str, object]]) -> Verdict:
    steps = [int(step) for step in fields["sequences"]]
    summary = {name: _typed(name, value) for name, value in {**_ADDED, **fields["summary"]}.items()}
    int(str(summary["first_sequence"]))
    void = {int(sequence): str(text) for sequence, text in fields["void"].items()}
    return Verdict(
        sequences=tuple(accumulate(steps)),
        summary=summary,
        void=void,
        release=str(fields["release"]),
        erased=bool(fields["erased"]),
        withdrawn=bool(fields.get("withdrawn")),
    )


def _plain(value: object) -> object:
    return micros(value) if isinstance(value, datetime) else value


def _typed(name: str, value: object) -> object:
    return from_micros(value) if name in TIMES and isinstance(value, int) else value
