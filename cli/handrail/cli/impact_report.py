"""The result of `handrail contracts impact`: as text, and as Markdown for a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from handrail.analysis.compat.change import Level
from handrail.analysis.compat.impact import Hit, Impact, Known
from handrail.cli.output import columns
from handrail.cli.usage import Usage, agent_line
from handrail.mesh.printable import clean

Version = tuple[str, int]
"""A flow type and a version."""

_NOBODY = "nobody: no examined template uses it, and no consumer declares it"


@dataclass(frozen=True, slots=True)
class Report:
    """Every change against a baseline and whom it affects. `usage` is missing if no coordinator was asked; `notes` say
    what could not be examined."""

    against: str
    impacts: Sequence[Impact]
    templates: Sequence[Known]
    usage: Usage | None
    notes: Sequence[str]

    @property
    def worst(self) -> Level:
        """The level of the worst change."""
        return max((impact.change.level for impact in self.impacts), default=Level.COMPATIBLE)

    @property
    def harmful(self) -> list[Impact]:
        """The changes that are not compatible, worst first."""
        return [impact for impact in self.impacts if impact.change.level]

    @property
    def compatible(self) -> list[Impact]:
        """The compatible changes."""
        return [impact for impact in self.impacts if not impact.change.level]

    @property
    def verdict(self) -> str:
        """The result in one sentence."""
        levels = [impact.change.level for impact in self.impacts]
        breaking = sum(level.is_breaking for level in levels)
        counts = f"{breaking} breaking, {levels.count(Level.TIGHTENED)} tightened, {len(self.compatible)} compatible"
        if not self.harmful:
            return f"{counts}; nobody is affected"
        hits = [hit for impact in self.harmful for hit in impact.hits]
        agents = {agent for hit in hits for agent in hit.agents}
        versions = {hit.version for hit in hits}
        said = f"{counts}; affected: {_many(len(agents), 'agent')}, {_many(len(versions), 'template version')}"
        if calls := {call for impact in self.harmful for call in impact.calls}:
            said += f", clients of {_many(len(calls), 'RPC')}"
        if consumers := {use.consumer.name for impact in self.harmful for use in impact.consumers}:
            said += f", {_many(len(consumers), 'consumer')}"
        if self.usage is None:
            return f"{said}, running flows unknown"
        everybody = any(impact.everybody for impact in self.harmful)
        flows = self.usage.running(self.usage.versions if everybody else versions)
        return f"{said}, {_many(flows, 'running flow')}"


def as_text(report: Report) -> Iterator[str]:
    """Yields the report line by line, for a terminal."""
    yield f"Contracts against {report.against}: {report.verdict}"
    for impact in report.harmful:
        change = impact.change
        yield ""
        yield f"{change.level.name} {change.name}"
        yield f"    {change.text}  ({change.code} in {change.file})"
        if everywhere := list(_everywhere(impact)):
            yield from (f"    {line}" for line in columns(everywhere))
        for hit in impact.hits:
            yield f"    {_title(hit)}"
            yield from (f"        {line}" for line in columns(list(_of_hit(hit))))
        if not impact.hits_anybody:
            yield f"    {_NOBODY}"
        yield from (f"    {_version(version)}: {said}" for version, said in drains(report, impact))
        yield f"    instead: {change.remedy}"
    if report.compatible:
        yield ""
        yield from (f"{i.change.level.name} {i.change.name}: {i.change.text}" for i in report.compatible)
    if report.usage and report.harmful:
        yield ""
        yield from (f"agent {line}" for line in _agents(report))
    if report.notes:
        yield ""
        yield from (f"not examined: {note}" for note in report.notes)


def as_markdown(report: Report) -> Iterator[str]:
    """Yields the report line by line, for a pull request."""
    yield f"## Contracts against `{report.against}`"
    yield ""
    yield f"{report.verdict}."
    for impact in report.harmful:
        change = impact.change
        yield from ("", f"### {change.level.name}: `{change.name}`", "")
        yield f"{_escaped(change.text)}. `{change.code}` in `{change.file}`."
        yield ""
        if impact.hits_anybody:
            yield "| template | who | what |"
            yield "| --- | --- | --- |"
            yield from (f"| | {_escaped(who)} | {_escaped(what)} |" for who, what in _everywhere(impact))
            for hit in impact.hits:
                yield from (
                    f"| {_escaped(_title(hit))} | {_escaped(who)} | {_escaped(what)} |" for who, what in _of_hit(hit)
                )
        else:
            yield f"Affects {_NOBODY}."
        yield ""
        yield from (f"- {_version(version)}: {_escaped(said)}" for version, said in drains(report, impact))
        yield f"- **Instead:** {_escaped(change.remedy)}"
    if report.compatible:
        yield from ("", "### Compatible", "")
        yield from (f"- `{each.change.name}`: {_escaped(each.change.text)}" for each in report.compatible)
    if report.usage and report.harmful:
        yield from ("", "### Agents", "")
        yield from (f"- {_escaped(line)}" for line in _agents(report))
    if report.notes:
        yield from ("", "### Not examined", "")
        yield from (f"- {_escaped(note)}" for note in report.notes)


def drains(report: Report, impact: Impact) -> Iterator[tuple[Version, str]]:
    """Yields for each affected version how many flows run on it, and when the last of them will have drained; nothing
    if no coordinator was asked."""
    if report.usage is None:
        return
    versions = report.usage.versions if impact.everybody else {hit.version for hit in impact.hits}
    for version in sorted(versions):
        running = report.usage.versions.get(version)
        yield version, "is not stored on the coordinator" if running is None else running.drained()


def _everywhere(impact: Impact) -> Iterator[tuple[str, str]]:
    if impact.everybody:
        yield "every agent", "speaks Handrail's own messages"
    for call in impact.calls:
        yield "clients of the API", f"call {call}"
    for use in impact.consumers:
        yield f"consumer {use.consumer.name}", str(use)


def _of_hit(hit: Hit) -> Iterator[tuple[str, str]]:
    for part in hit.starts:
        yield f"agent {part.agent}" if part.agent else "clients that start flows", f"starts flows with {part.message}"
    for verb, parts in (("emits", hit.emits), ("waits for", hit.waits)):
        yield from ((f"agent {part.agent}", f"{verb} {part.message} in step {part.step}") for part in parts)
    yield from ((f"agent {part.agent}", f"undoes {part.message} of step {part.step}") for part in hit.undoes)
    yield from ((f"agent {part.agent}", f"reports step {part.step} undone with {part.message}") for part in hit.reports)
    yield from ((f"gate {gate}", "guards it") for gate in hit.gates)
    for reading in hit.readings:
        problem = f"; no longer compiles: {_first(reading.problem)}" if reading.problem else ""
        yield f"{reading.kind} {reading.name}", f"reads it: {reading.text}{problem}"


def _first(problem: str) -> str:
    """Returns the first error of an expression, without the expression itself."""
    return problem.rpartition('": ')[2].partition("; ")[0]


def _title(hit: Hit) -> str:
    return f"{_version(hit.version)} ({hit.template.origin})"


def _version(version: Version) -> str:
    return f"{version[0]}@{version[1]}"


def _agents(report: Report) -> Iterator[str]:
    assert report.usage is not None
    hit = {agent for impact in report.harmful for each in impact.hits for agent in each.agents}
    everybody = any(impact.everybody for impact in report.harmful)
    for agent, usage in sorted(report.usage.agents.items()):
        if agent in hit or everybody:
            yield f"{agent}: {agent_line(usage)}"


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def _escaped(text: str) -> str:
    return clean(text).replace("|", "\\|").replace("<", "&lt;")
