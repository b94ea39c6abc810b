"""The whole check of a stream: `Check` takes raw messages and reports its findings."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta

from handrail.cli.verify import acknowledged, rules, waiting
from handrail.cli.verify.account import Account, account
from handrail.cli.verify.acknowledged import Call
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.plan import Plans
from handrail.cli.verify.record import Message, Stored, read
from handrail.cli.verify.standing import OPEN, Standing, standing
from handrail.v1.flow_service_pb2 import Flow


class Check:
    """Takes a stream message by message from its first one, then judges the result."""

    def __init__(self, plans: Plans) -> None:
        self._plans = plans
        self._messages: dict[str, list[Message]] = defaultdict(list)
        self._last = 0
        self._gaps: list[Finding] = []
        self.unreadable = 0
        """Messages that can't be read, or that have an underived id: they are void."""
        self.accounts: dict[str, Account] = {}
        """Flows by id, after `judge` was called."""
        self.standings: dict[str, Standing] = {}

    @property
    def messages(self) -> int:
        """How many messages were taken."""
        return sum(map(len, self._messages.values())) + self.unreadable

    def take(self, stored: Stored) -> None:
        """Takes the next message; none may be missing between two, because nothing may be deleted."""
        if self._last and stored.sequence > self._last + 1:
            missing = f"{self._last + 1} to {stored.sequence - 1}"
            self._gaps.append(Finding(Breach.LOST, f"sequences {missing} are missing from the stream"))
        self._last = stored.sequence
        message = read(stored)
        if message is None:
            self.unreadable += 1
        else:
            self._messages[message.flow_id].append(message)

    def judge(self) -> list[Finding]:
        """Returns the findings of the stream alone."""
        found = list(self._gaps)
        for flow_id, messages in self._messages.items():
            made = account(messages, self._plans)
            if made is None or made.first is None:
                continue
            self.accounts[flow_id] = made
            self.standings[flow_id] = standing(made)
            found += rules.breaches(made, self.standings[flow_id])
        return found

    @property
    def open_flows(self) -> list[str]:
        """Returns the flows that are not final."""
        return [flow_id for flow_id, each in self.standings.items() if each.status == OPEN]

    @property
    def unsure(self) -> Mapping[str, str]:
        """Returns the flows of uncertain standing, and the reasons: the installation is asked, but not compared."""
        return {flow_id: each.unsure for flow_id, each in self.accounts.items() if each.unsure}

    def compare(self, said: Iterable[Flow]) -> Iterator[Finding]:
        """Yields contradictions between the installation's flows and the stream's."""
        for flow in said:
            if flow.flow_id in self.accounts:
                yield from waiting.contradictions(self.accounts[flow.flow_id], self.standings[flow.flow_id], flow)

    def hung(self, said: Iterable[Flow], *, now: datetime, grace: timedelta) -> Iterator[Finding]:
        """Yields those of these flows that do not wait visibly."""
        for flow in said:
            if flow.flow_id in self.accounts:
                yield from waiting.hung(self.accounts[flow.flow_id], flow, now=now, grace=grace)

    def keep(self, calls: Iterable[Call]) -> Iterator[Finding]:
        """Yields what callers were told and does not hold."""
        yield from acknowledged.broken_promises(calls, self.accounts, self.standings)
