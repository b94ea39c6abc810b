"""Stories: text files of commands, each with what it is to show. They read as what agents and people do, and need no
Python to be checked.

    # What stands here is for the reader.
    emit reserve StockReserved units=2
    ----
      2  0:00:00  warehouse: StockReserved
    = RUNNING
        sales owes discount by 0:00:30

Commands. Where a step has several runs, `for=7` names the one that message 7 triggered; where a message type has
several effects, the one that message 7 reported.

    template NAME [place__field=VALUE…]      begin with this template, with changes
    version NUMBER [place__field=VALUE…]     the same with changes, as another version
    start TYPE [field=VALUE…] [by=PERSON | agent=NAME]
    emit STEP TYPE [field=VALUE…] [as=AGENT] [output=1/3] [run=N] [kind=event] [version=N] [for=N]
    fail STEP TEXT [final] [unknown]         not-started STEP [attempt=N]    progress STEP [times=N]
    undone TYPE [MESSAGE] [as=AGENT] [for=N] undo-fails TYPE TEXT [final] [for=N]
    approve PERSON ROLE… [digest=TEXT]       reject PERSON ROLE… [digest=TEXT]
    approve PERSON ROLE… on-behalf-of=PERSON reassign PERSON ROLE…
    compensate PERSON [to=STEP]              cancel PERSON [keep]
    retry PERSON STEP                        resolve PERSON CAUSE CHOICE
    confirm PERSON ROLE… [digest=TEXT]       break-glass PERSON ROLE… [why=TEXT]
    withdraw PERSON                          what two persons must do: the second one confirms, or nobody does
    wait 5m                                  coordinator off|on
    migrate PERSON NUMBER                    move the flow to that version
    … alone                                  behind what a person does: recorded without asking for a second person
    busy AGENT                               it is at work elsewhere, and is handed nothing new
    gone AGENT                               it is handed nothing, and is not at work
    back AGENT                               it is handed what waits
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from handrail.mesh.flow import Effect, Flow, Proposal, RunState, StepRun
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.mesh.wire.subjects import COORDINATOR, Kind
from handrail.v1.decision_pb2 import Choice, EscalationCause, HaltMode
from tests.scenarios.describe import line, short, standing
from tests.support import orders
from tests.support.simulation import Simulation

_OPTIONS = {
    "as",
    "output",
    "run",
    "kind",
    "version",
    "for",
    "by",
    "agent",
    "digest",
    "on-behalf-of",
    "times",
    "to",
    "attempt",
    "why",
}
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Story:
    """One story as it is told: give it a command, and it says what happened."""

    def __init__(self) -> None:
        self._simulation: Simulation | None = None
        self._file = ""
        self._shown: list[str] = []
        self._commands: dict[str, Callable[[_Words], None]] = {
            "start": self._start,
            "emit": self._emit,
            "fail": self._fail,
            "not-started": self._not_started,
            "progress": self._progress,
            "undone": self._undone,
            "undo-fails": self._undo_fails,
            "approve": lambda words: self._vote(words, approve=True),
            "reject": lambda words: self._vote(words, approve=False),
            "reassign": self._reassign,
            "compensate": self._compensate,
            "cancel": self._cancel,
            "retry": lambda words: self._do(self._now.reopen(self._run(words, at=1), words.plain[0]), words),
            "confirm": self._confirm,
            "break-glass": self._break_glass,
            "withdraw": lambda words: self._say(self._now.withdraw(self._now.act(), words.plain[0])),
            "resolve": self._resolve,
            "wait": lambda words: self._now.wait(_duration(words.plain[0])),
            "coordinator": self._coordinator,
            "busy": lambda words: self._now.take_nothing(words.plain[0]),
            "gone": lambda words: self._now.take_nothing(words.plain[0], idle=timedelta.max),
            "back": lambda words: self._now.hand_out(words.plain[0]),
            "migrate": lambda words: self._do(self._now.migrate(int(words.plain[1]), words.plain[0]), words),
        }

    def tell(self, command: str) -> str:
        """Do what a command says; what was stored since, and where the flow stands then."""
        name, *rest = shlex.split(command)
        words = _Words(rest)
        self._shown = []
        if name == "template":
            changes: dict[str, Any] = {key: _plain(value) for key, value in words.named.items()}
            self._simulation = Simulation(orders.load(words.plain[0], **changes))
            self._simulation.on_stored = self._show
            self._file = words.plain[0]
            return "ok"
        if name == "version":
            number = int(words.plain[0])
            changes = {key: _plain(value) for key, value in words.named.items()}
            self._now.versions[number] = orders.load(self._file, flow__version=number, **changes)
            return "ok"
        self._commands[name](words)
        flow = self._now.flow
        assert flow == self._now.folded(), "P4: the fold is not the sum of its steps"
        assert not (self._now.coordinator and self._now.is_silent()), "P7: the flow would never be heard of again"
        return "\n".join([*self._shown, *standing(flow)])

    @property
    def _now(self) -> Simulation:
        assert self._simulation is not None, "a story begins with a template"
        return self._simulation

    def _show(self, recorded: Recorded) -> None:
        self._shown.append(line(self._now.flow, recorded))

    def _say(self, entry: Entry) -> None:
        self._now.say(entry)

    def _do(self, entry: Entry, words: _Words) -> None:
        """A person does something, which may need a second person."""
        self._say(entry if "alone" in words.plain else self._now.ask(entry))

    def _start(self, words: _Words) -> None:
        agent = words.named.get("agent", COORDINATOR)
        self._say(self._now.start(words.message(0), agent=agent, requester=words.named.get("by", "")))

    def _emit(self, words: _Words) -> None:
        index, _, total = words.named.get("output", "1/1").partition("/")
        number = words.named.get("run")
        kind = words.named.get("kind")
        entry = self._now.outcome(
            self._run(words),
            words.message(1),
            agent=words.named.get("as", ""),
            index=int(index) - 1,
            total=int(total),
            number=None if number is None else int(number),
            kind=Kind(kind) if kind else None,
        )
        if "version" in words.named:
            entry.event.template_version = int(words.named["version"])
        self._say(entry)

    def _fail(self, words: _Words) -> None:
        run, text = self._run(words), words.plain[1]
        flags = words.plain[2:]
        entry = self._now.failed(run, text, retryable="final" not in flags, outcome_unknown="unknown" in flags)
        self._say(entry)

    def _not_started(self, words: _Words) -> None:
        run = self._run(words)
        self._say(self._now.not_started(replace(run, attempt=int(words.named.get("attempt", run.attempt)))))

    def _progress(self, words: _Words) -> None:
        for _ in range(int(words.named.get("times", "1"))):
            counter = 1 + sum(recorded.kind is Kind.PROGRESS for recorded in self._now.history)
            self._say(self._now.progress(self._run(words), counter))
        if len(self._shown) > 20:
            self._shown[3:-8] = [f"    … {len(self._shown) - 11} more"]

    def _undone(self, words: _Words) -> None:
        message = words.message(1) if len(words.plain) > 1 else orders.make("StepCompleted")
        self._say(self._now.undone(self._effect(words), message, agent=words.named.get("as", "")))

    def _undo_fails(self, words: _Words) -> None:
        entry = self._now.undo_failed(self._effect(words), words.plain[1], retryable="final" not in words.plain)
        self._say(entry)

    def _vote(self, words: _Words, *, approve: bool) -> None:
        voter, *roles = words.plain
        digest = words.named.get("digest", "")
        behalf = words.named.get("on-behalf-of", "")
        vote = self._now.vote(self._proposal(), voter, roles, approve=approve, digest=digest, on_behalf_of=behalf)
        self._say(vote)

    def _compensate(self, words: _Words) -> None:
        to_step = words.named.get("to", "")
        reason = f"{words.plain[0]} wants it undone"
        self._do(self._now.halt(HaltMode.HALT_MODE_COMPENSATE, words.plain[0], reason, to_step=to_step), words)

    def _cancel(self, words: _Words) -> None:
        keep = "keep" in words.plain
        entry = self._now.halt(HaltMode.HALT_MODE_CANCEL, words.plain[0], "no longer wanted", keep_effects=keep)
        self._do(entry, words)

    def _resolve(self, words: _Words) -> None:
        person, cause, choice = words.plain[:3]
        wanted = EscalationCause.Value(f"ESCALATION_CAUSE_{cause}")
        about = next(e.escalation_id for e in self._now.flow.escalations.values() if e.cause == wanted)
        self._do(self._now.resolve(about, Choice.Value(f"CHOICE_{choice}"), person), words)

    def _reassign(self, words: _Words) -> None:
        person, *roles = (word for word in words.plain if word != "alone")
        self._do(self._now.reassign(self._proposal(), person, roles), words)

    def _confirm(self, words: _Words) -> None:
        person, *roles = words.plain
        self._say(self._now.confirm(self._now.act(), person, roles, digest=words.named.get("digest", "")))

    def _break_glass(self, words: _Words) -> None:
        person, *roles = words.plain
        self._say(self._now.confirm(self._now.act(), person, roles, reason=words.named.get("why", "")))

    def _coordinator(self, words: _Words) -> None:
        self._now.coordinator = words.plain[0] == "on"
        self._now.settle()

    def _run(self, words: _Words, *, at: int = 0) -> StepRun:
        name, trigger = words.plain[at], words.named.get("for")
        runs = [run for run in self._now.flow.runs.values() if run.step.name == name]
        runs = [run for run in runs if trigger in (None, str(run.trigger.sequence))]
        live = [run for run in runs if run.state is not RunState.SUPERSEDED]
        assert runs, f"nothing triggered step {name}"
        return (live if trigger is None and live else runs)[-1]

    def _effect(self, words: _Words) -> Effect:
        effects = [e for e in self._now.flow.effects.values() if short(e.recorded.type) == words.plain[0]]
        which = words.named.get("for")
        return [e for e in effects if which in (None, str(e.recorded.sequence))][-1]

    def _proposal(self) -> Proposal:
        flow: Flow = self._now.flow
        return list(flow.proposals.values())[-1]


class _Words:
    """The words of a command: plain ones, options, and fields of a message."""

    def __init__(self, words: list[str]) -> None:
        pairs = dict(word.split("=", 1) for word in words if "=" in word)
        self.plain = [word for word in words if "=" not in word]
        self.named = {key: value for key, value in pairs.items() if key in _OPTIONS or "__" in key}
        self._fields = {key: value for key, value in pairs.items() if key not in self.named}

    def message(self, at: int) -> Message:
        """The message whose name stands at this place."""
        fields = {key: int(value) if value.lstrip("-").isdecimal() else value for key, value in self._fields.items()}
        return orders.make(self.plain[at], **fields)


def _duration(text: str) -> timedelta:
    parts = re.findall(r"(\d+)([smhd])", text)
    assert "".join(number + unit for number, unit in parts) == text, f"{text} is no duration"
    return timedelta(**{_UNITS[unit]: int(number) for number, unit in parts})


def _plain(value: str) -> str | tuple[str, ...]:
    return tuple(value.removeprefix("[").removesuffix("]").split(",")) if value.startswith("[") else value
