"""Why a flow is where it is, what is expected from whom by when, and what happens else; in sentences. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import TypeAlias

from google.protobuf.json_format import MessageToDict

from handrail.console.flow.money import only_amount
from handrail.console.flow.states import choice, short_type
from handrail.console.web.moments import distance, lasting
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.act_pb2 import ActStatus, PendingAct
from handrail.v1.decision_pb2 import Choice, FlowStatus

Line: TypeAlias = tuple[str | datetime, ...]
"""A line of text, with times in it, which pages show as such."""

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_MOST = 3
_STANDING = (pb.EFFECT_STATUS_DONE, pb.EFFECT_STATUS_IRREVERSIBLE, pb.EFFECT_STATUS_UNDO_FAILED)
_UNDONE = (pb.EFFECT_STATUS_UNDONE, pb.EFFECT_STATUS_UNDONE_BY_HAND)


def sentences(flow: pb.Flow, now: datetime) -> list[Line]:
    """The lines about a flow as it was at `now`. There is always at least one."""
    status = flow.status
    if status == FlowStatus.FLOW_STATUS_COMPLETED:
        lines = _completed(flow)
    elif status == FlowStatus.FLOW_STATUS_COMPENSATED:
        lines = [("Its effects were undone.",), *_reason(flow), *_standing(flow)]
    elif status == FlowStatus.FLOW_STATUS_CANCELLED:
        lines = [("It was cancelled.",), *_reason(flow), *_standing(flow)]
    elif status == FlowStatus.FLOW_STATUS_FAILED:
        lines = [("It failed.",), *_reason(flow), *_standing(flow)]
    elif status == FlowStatus.FLOW_STATUS_ESCALATED:
        lines = [*_escalated(flow, now), *_agents(flow, now)]
    elif status == FlowStatus.FLOW_STATUS_WAITING_APPROVAL:
        lines = [*_approvals(flow, now), *_agents(flow, now)]
    elif status == FlowStatus.FLOW_STATUS_COMPENSATING:
        lines = [*_compensating(flow), *_agents(flow, now)]
    else:
        lines = list(_agents(flow, now))
    return [*(lines or [("Nothing is expected.",)]), *_acts(flow, now)]


def untold(flow: pb.Flow) -> Sequence[pb.OpenEscalation]:
    """The matters for a person that the sentences leave out."""
    is_told = flow.status == FlowStatus.FLOW_STATUS_ESCALATED
    return flow.escalations[_MOST:] if is_told else flow.escalations


def counted(number: int, noun: str, plural: str = "") -> str:
    """`one person`, `two people`, `12 people`."""
    word = _NUMBERS[number] if number < len(_NUMBERS) else f"{number:,}"
    return f"{word} {noun if number == 1 else plural or noun + 's'}"


def enumerated(words: Sequence[str], conjunction: str) -> str:
    """`a`, `a or b`, `a, b or c`."""
    return f" {conjunction} ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))


def _completed(flow: pb.Flow) -> list[Line]:
    start, end = _time(flow.start_time), _time(flow.update_time)
    return [("It reached its goal at ", end, f", after {lasting(end - start)}."), *_reason(flow)]


def _reason(flow: pb.Flow) -> Iterator[Line]:
    if flow.status_reason:
        yield (_sentence(flow.status_reason),)


def _standing(flow: pb.Flow) -> Iterator[Line]:
    stands = [each for each in flow.effects if each.status in _STANDING]
    if stands:
        verb = "stands" if len(stands) == 1 else "stand"
        types = enumerated([short_type(each.type) for each in stands[:_MOST]], "and")
        more = f" and {len(stands) - _MOST} more" if len(stands) > _MOST else ""
        yield (f"{_capital(counted(len(stands), 'effect'))} {verb}: {types}{more}.",)


def _escalated(flow: pb.Flow, now: datetime) -> Iterator[Line]:
    for matter in flow.escalations[:_MOST]:
        where = f" about step {matter.step}" if matter.step else ""
        yield (f"A person must decide{where}. {_sentence(matter.reason)}",)
        since = _time(matter.open_time)
        waited: Line = (
            ("It has waited since ", since, f", for {lasting(now - since)}.") if matter.open_time.seconds else ()
        )
        choices = enumerated([choice(Choice.Name(each)) for each in matter.choices if each in Choice.values()], "or")
        yield (f"An operator can choose: {choices}. ", *waited)
    yield from _more(len(flow.escalations), "matter")
    if not flow.escalations:
        yield ("A person must decide.",)
        yield from _reason(flow)


def _approvals(flow: pb.Flow, now: datetime) -> Iterator[Line]:
    pending = [each for each in flow.approvals if each.status == pb.APPROVAL_STATUS_PENDING]
    for approval in pending[:_MOST]:
        yield from _approval(flow, approval, now)
    yield from _more(len(pending), "approval")


def _approval(flow: pb.Flow, approval: pb.Approval, now: datetime) -> Iterator[Line]:
    what = only_amount(MessageToDict(approval.data_json)) or f"{short_type(approval.type)} of step {approval.step}"
    yes = [vote for vote in approval.votes if vote.approve]
    due = _due(approval, now)
    for gate in approval.gates:
        people = counted(gate.quorum or 1, "person", "people")
        by = due if due and not yes else ("",)
        yield (f"{_capital(people)} of {enumerated(list(gate.roles), 'or')} must approve {what}", *by, ".")
    for vote in yes[:_MOST]:
        behalf = f" for {vote.on_behalf_of}" if vote.on_behalf_of else ""
        yield (f"{vote.voter}{behalf} approved at ", _time(vote.time), ".")
    missing = max((gate.quorum or 1 for gate in approval.gates), default=1) - len(yes)
    if yes and missing > 0:
        number = _capital(_NUMBERS[missing]) if missing < len(_NUMBERS) else str(missing)
        yield (f"{number} more {'is' if missing == 1 else 'are'} needed", *(due or ("",)), ".")
    barred = sorted({gate.requester for gate in approval.gates if gate.requester})
    if barred:
        yield (f"{enumerated(barred, 'and')} asked for it and may not vote.",)
    otherwise = {each.otherwise for each in flow.expectations if each.subject_id == approval.approval_id}
    if len(otherwise) == 1 and due:
        yield (f"If nobody answers, {otherwise.pop()}.",)


def _due(approval: pb.Approval, now: datetime) -> Line:
    """` by 14:03, in 3 h 9 min`; empty without a deadline."""
    if not approval.HasField("expire_time"):
        return ()
    due = _time(approval.expire_time)
    return (" by ", due, f", {distance(due, now)}")


def _compensating(flow: pb.Flow) -> Iterator[Line]:
    done = sum(each.status in _UNDONE for each in flow.effects)
    whole = sum(each.status != pb.EFFECT_STATUS_IRREVERSIBLE for each in flow.effects)
    yield (f"Its effects are being undone: {done} of {whole} so far.",)
    yield from _reason(flow)


def _agents(flow: pb.Flow, now: datetime) -> Iterator[Line]:
    """What agents and the coordinator owe; the most urgent first."""
    owed = sorted((each for each in flow.expectations if each.by_agent), key=_urgency)
    for each in owed[:_MOST]:
        due: Line = ("",)
        if each.HasField("due_time"):
            time = _time(each.due_time)
            due = (" It is due by ", time, f", {distance(time, now)}." if time >= now else ". That time has passed.")
        otherwise = f" Otherwise {each.otherwise}." if each.otherwise else ""
        yield (f"{each.by_agent} owes {each.what}.", *due, otherwise)
    yield from _more(len(owed), "step")


def _acts(flow: pb.Flow, now: datetime) -> Iterator[Line]:
    for act in flow.acts:
        if act.status == ActStatus.ACT_STATUS_PENDING:
            yield _act(act, now)


def _act(act: PendingAct, now: datetime) -> Line:
    text = f"{act.by} asked to do this: {act.summary}. Another person must confirm it"
    if not act.HasField("expire_time"):
        return (f"{text}.",)
    due = _time(act.expire_time)
    return (f"{text} by ", due, f", {distance(due, now)}; otherwise nothing is done.")


def _more(number: int, noun: str) -> Iterator[Line]:
    if number > _MOST:
        yield (f"And {counted(number - _MOST, f'more {noun}')}.",)


def _urgency(expectation: pb.Expectation) -> float:
    return _time(expectation.due_time).timestamp() if expectation.HasField("due_time") else float("inf")


def _time(stamp: object) -> datetime:
    found: datetime = stamp.ToDatetime(UTC)  # type: ignore[attr-defined]
    return found


def _sentence(text: str) -> str:
    """A reason as a sentence: with a capital, and with a full stop."""
    text = _capital(text.strip())
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def spoken(lines: Iterable[Line]) -> str:
    """The lines as one text, times as `10:02`."""
    return " ".join("".join(f"{part:%H:%M}" if isinstance(part, datetime) else part for part in each) for each in lines)
