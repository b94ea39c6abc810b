"""The invariants of one flow in any state."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from handrail.cli.verify.account import Account
from handrail.cli.verify.finding import Breach, Finding
from handrail.cli.verify.record import Message
from handrail.cli.verify.standing import Standing
from handrail.v1.decision_pb2 import FlowClosed, FlowStatus
from handrail.v1.template_pb2 import Effect

_UNDONE = frozenset({FlowStatus.FLOW_STATUS_COMPENSATED, FlowStatus.FLOW_STATUS_CANCELLED})


def breaches(account: Account, standing: Standing) -> Iterator[Finding]:
    """Yields the breaches of one flow."""
    yield from _written_once(account)
    yield from _given_once(account)
    yield from _released_as_approved(account)
    yield from _nothing_begun_while_halted(account, standing)
    yield from _closed_with_nothing_left(account, standing)


def found(account: Account, breach: Breach, text: str, at: Message | None = None) -> Finding:
    """Returns a finding about this flow, shown by one of its messages."""
    return Finding(breach, text, account.flow_type, account.flow_id, 0 if at is None else at.sequence)


def _written_once(account: Account) -> Iterator[Finding]:
    places = Counter((each.kind, each.agent, each.event_id, each.type) for each in account.messages)
    for (kind, agent, event_id, name), number in places.items():
        if number > 1:
            text = f"{number} messages on one subject: {kind} {name} {event_id} of {agent}"
            yield found(account, Breach.DOUBLED, text)


def _given_once(account: Account) -> Iterator[Finding]:
    for each in account.second:
        event = each.event
        if event.step:
            text = f"a second answer of step {event.step}, run {event.run}, output {event.output_index}: {each.type}"
        else:
            text = f"a second first event, {each.type} by {event.source}"
        yield found(account, Breach.DOUBLED, text, each)


def _released_as_approved(account: Account) -> Iterator[Finding]:
    for stray in account.approvals.strays:
        yield found(account, Breach.WRONG, f"{stray.type} was released, but not with the proposed bytes", stray)
    for proposed in account.approvals.proposals.values():
        released = proposed.released
        # A move to another version evaluates the gates again: their earlier requests are not in the stream.
        if released is None or account.approvals.moved_at:
            continue
        always = [gate.name for gate in proposed.gates if not gate.when]
        if proposed.request(released.sequence) is None and always:
            text = f"{released.type} was released and nobody was asked, although gate {always[0]} always asks"
            yield found(account, Breach.WRONG, text, released)
        elif proposed.request(released.sequence) is not None and not proposed.passed(released.sequence):
            yield found(account, Breach.WRONG, f"{released.type} was released without its quorum", released)


def _nothing_begun_while_halted(account: Account, standing: Standing) -> Iterator[Finding]:
    """An undoable step that began in a halt is undone; a step that can't be undone must not begin."""
    for effect in account.effects():
        step = account.step_of(effect)
        if step is None or step.effect != Effect.EFFECT_IRREVERSIBLE:
            continue
        trigger = account.triggered_at(effect)
        for halt in standing.halts:
            if halt.since < trigger and effect.sequence < halt.until:
                text = f"step {step.name} can't be undone, but began although the flow was halted at {halt.since}"
                yield found(account, Breach.WRONG, text, effect)


def _closed_with_nothing_left(account: Account, standing: Standing) -> Iterator[Finding]:
    """An effect may overtake a close and is then undone; a close must not ignore an effect that it was based on."""
    for message in account.decisions(FlowClosed):
        status = FlowClosed.FromString(message.data).status
        halt = next((each for each in standing.halts if each.since < message.sequence < each.until), None)
        if status not in _UNDONE or halt is None or not halt.undoes:
            continue
        for effect in account.standing_effects(message.event.based_on_sequence):
            text = f"the flow was closed as {FlowStatus.Name(status)[12:]}, but {effect.type} stands"
            yield found(account, Breach.WRONG, text, effect)
