"""The replayer: takes any number of whole flows, returns their tally and their differences."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from handrail.analysis.replay.changes import changes
from handrail.analysis.replay.differences import differences
from handrail.analysis.replay.observed import observe
from handrail.analysis.replay.regular import try_regular
from handrail.analysis.replay.stored import Messages
from handrail.analysis.replay.tally import Tally
from handrail.analysis.replay.trial import Trial
from handrail.mesh.fold import Versions
from handrail.mesh.template import Template
from handrail.v1.template_service_pb2 import ReplayDifference


class Span(NamedTuple):
    """The time span in which a flow must have begun: from `since`, before `until`; None: unbounded."""

    since: datetime | None = None
    until: datetime | None = None

    def __contains__(self, time: object) -> bool:
        assert isinstance(time, datetime)
        return (self.since is None or self.since <= time) and (self.until is None or time < self.until)


class Replayer:
    """Tries a changed template on flows of its type. `versions` are the versions that they were recorded under."""

    def __init__(self, changed: Template, versions: Versions, span: Span) -> None:
        self._changed = changed
        self._versions = versions
        self._span = span

    def replay(self, flows: Iterable[Messages], *, limit: int) -> tuple[Tally, list[ReplayDifference]]:
        """Replays flows, each with all its messages. Ignores flows that began outside the span.

        Explains at most `limit` differences; the tally counts all.
        """
        tally = Tally()
        explained: list[ReplayDifference] = []
        for messages in flows:
            trials = self._trials(messages)
            if trials is None:
                continue
            then, now = trials
            found = sum(1 for _ in changes(then, now))
            tally.count(then, now, messages=len(messages), differences=found)
            if found and len(explained) < limit:
                explained += self._explained(messages)[: limit - len(explained)]
        return tally, explained

    def _trials(self, messages: Messages) -> tuple[Trial, Trial] | None:
        regular = try_regular(messages, self._versions, self._changed)
        if regular is not None:
            return regular if messages[0].time in self._span else None
        observed = observe(messages, self._versions, self._changed)
        if observed is None or observed.flow.start_time not in self._span:
            return None
        return observed.then, observed.now

    def _explained(self, messages: Messages) -> list[ReplayDifference]:
        observed = observe(messages, self._versions, self._changed)
        return list(differences(observed)) if observed is not None else []
