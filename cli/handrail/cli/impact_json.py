"""The result of `handrail contracts impact`, for programs."""

from __future__ import annotations

from collections.abc import Sequence

from handrail.analysis.compat.consumers import Use
from handrail.analysis.compat.impact import Hit, Impact, Part
from handrail.cli.impact_report import Report, drains
from handrail.cli.output import Json
from handrail.cli.usage import Usage


def as_json(report: Report) -> dict[str, Json]:
    """Returns the report as one JSON document."""
    return {
        "against": report.against,
        "worst": report.worst.name,
        "verdict": report.verdict,
        "changes": [_impact_json(report, impact) for impact in report.impacts],
        "templates": [
            {"name": known.proto.name, "version": known.proto.version, "origin": known.origin}
            for known in report.templates
        ],
        "usage": None if report.usage is None else _usage_json(report.usage),
        "notes": list(report.notes),
    }


def _impact_json(report: Report, impact: Impact) -> Json:
    change = impact.change
    return {
        "code": change.code,
        "level": change.level.name,
        "name": change.name,
        "definition": change.definition,
        "member": change.member,
        "file": change.file,
        "text": change.text,
        "remedy": change.remedy,
        "messages": list(impact.messages),
        "calls": list(impact.calls),
        "consumers": [_use_json(use) for use in impact.consumers],
        "everybody": impact.everybody,
        "hits": [_hit_json(hit) for hit in impact.hits],
        "runningFlows": None if report.usage is None else report.usage.running(hit.version for hit in impact.hits),
        "drains": {f"{name}@{version}": said for (name, version), said in drains(report, impact)},
    }


def _hit_json(hit: Hit) -> Json:
    return {
        "template": hit.version[0],
        "version": hit.version[1],
        "origin": hit.template.origin,
        "agents": list(hit.agents),
        "messages": list(hit.messages),
        "starts": _parts_json(hit.starts),
        "emits": _parts_json(hit.emits),
        "waits": _parts_json(hit.waits),
        "undoes": _parts_json(hit.undoes),
        "reports": _parts_json(hit.reports),
        "gates": list(hit.gates),
        "readings": [dict(reading._asdict()) for reading in hit.readings],
    }


def _use_json(use: Use) -> Json:
    return {
        "name": use.consumer.name,
        "contact": use.consumer.contact,
        "reads": list(use.reads),
        "sends": list(use.sends),
        "calls": list(use.calls),
    }


def _parts_json(parts: Sequence[Part]) -> list[Json]:
    return [dict(part._asdict()) for part in parts]


def _usage_json(usage: Usage) -> Json:
    return {
        "address": usage.address,
        "time": usage.time.isoformat(),
        "flowsExamined": usage.examined,
        "stoppedEarly": usage.stopped_early,
        "versions": [
            {
                "name": name,
                "version": version,
                "active": running.active,
                "runningFlows": running.flows,
                "oldestStart": running.oldest_start.isoformat() if running.oldest_start else None,
                "lastEnd": running.last_end.isoformat() if running.last_end else None,
                "unboundedFlows": running.unbounded_flows,
                "unbounded": [{"flowId": flow_id, "reason": reason} for flow_id, reason in running.unbounded],
            }
            for (name, version), running in sorted(usage.versions.items())
        ],
        "agents": [
            {
                "agent": agent,
                "durable": each.durable,
                "filters": list(each.filter_subjects),
                "pending": each.pending,
                "ackPending": each.ack_pending,
                "waitingPulls": each.waiting_pulls,
            }
            for agent, each in sorted(usage.agents.items())
        ],
    }
