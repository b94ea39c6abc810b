"""Acts that need two persons, as the fold judges them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from handrail.mesh.fold.acts import digest_of
from handrail.mesh.template.persons import ActState
from handrail.mesh.wire.envelope import Entry, pack
from handrail.v1.act_pb2 import Act
from handrail.v1.decision_pb2 import ActRequested, Choice, FlowHalted, HaltMode
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.support import orders
from tests.support.simulation import Simulation

CANCEL, COMPENSATE = HaltMode.HALT_MODE_CANCEL, HaltMode.HALT_MODE_COMPENSATE
EVERY_ACT = ("CANCEL", "COMPENSATE", "RETRY", "RESOLVE", "MIGRATE", "REASSIGN")
TWO_PERSONS_NEEDED = ErrorReason.ERROR_REASON_TWO_PERSONS_NEEDED


def guarded(*acts: str, **changes: str) -> Simulation:
    """An order that is under way, whose template wants two persons for these acts."""
    return orders.reserved(flow__require_two=list(acts), **changes)


def asked(simulation: Simulation, by: str = "ola") -> Simulation:
    """The same, after a person asked for its end."""
    simulation.say(simulation.ask(simulation.halt(CANCEL, by, "no longer wanted")))
    return simulation


def reason_of(simulation: Simulation, entry: Entry) -> ErrorReason.ValueType | None:
    """Why a message does not count, once it is stored; None where it does."""
    void = orders.void_of(simulation, entry)
    return None if void is None else void.reason


def test_p6_one_person_does_not_do_what_needs_two() -> None:
    simulation = guarded(*EVERY_ACT)
    simulation.versions[2] = orders.load("order", flow__version=2)
    run = orders.run_of(simulation, "reserve")
    ways: list[Callable[[], Entry]] = [
        lambda: simulation.halt(CANCEL, "ola", "why not"),
        lambda: simulation.halt(CANCEL, "ola", "why not", keep_effects=True),
        lambda: simulation.halt(COMPENSATE, "ola", "why not"),
        lambda: simulation.halt(COMPENSATE, "ola", "why not", to_step="reserve"),
        lambda: simulation.halt(HaltMode.HALT_MODE_FAIL, "ola", "why not"),
        lambda: simulation.halt(HaltMode.HALT_MODE_COMPLETE, "ola", "why not"),
        lambda: simulation.reopen(run, "ola"),
        lambda: simulation.migrate(2, "ola"),
    ]
    for alone in ways:
        assert reason_of(simulation, alone()) == TWO_PERSONS_NEEDED


@pytest.mark.parametrize(
    "act, choice",
    [
        ("CANCEL", Choice.CHOICE_CANCEL),
        ("CANCEL", Choice.CHOICE_FAIL),
        ("COMPENSATE", Choice.CHOICE_COMPENSATE),
        ("RESOLVE", Choice.CHOICE_RESUME),
    ],
)
def test_p6_an_answer_is_what_it_leads_to(act: str, choice: Choice.ValueType) -> None:
    simulation = orders.begun(risk=9, flow__require_two=[act])
    (escalation,) = simulation.flow.escalations
    assert reason_of(simulation, simulation.resolve(escalation, choice, "ola")) == TWO_PERSONS_NEEDED


def test_p6_a_template_that_names_any_act_includes_the_move_to_another_version() -> None:
    simulation = guarded("CANCEL")
    simulation.versions[2] = orders.load("order", flow__version=2)
    assert simulation.template.require_two == {Act.ACT_CANCEL, Act.ACT_MIGRATE}
    assert reason_of(simulation, simulation.migrate(2, "ola")) == TWO_PERSONS_NEEDED
    assert simulation.template.version == 1


def test_p6_letting_others_vote_is_an_act_too() -> None:
    simulation = orders.granted(30, flow__require_two=["REASSIGN"])
    proposal = orders.proposal_of(simulation)
    assert reason_of(simulation, simulation.reassign(proposal, "ola", ["friends"])) == TWO_PERSONS_NEEDED
    simulation.say(simulation.ask(simulation.reassign(proposal, "ola", ["friends"])))
    assert reason_of(simulation, simulation.confirm(simulation.act(), "kim")) is None
    assert {role for ask in orders.proposal_of(simulation).asks for role in ask.gate.roles} == {"friends"}


def test_without_require_two_one_person_does_everything_alone() -> None:
    simulation = orders.reserved()
    entry = simulation.halt(CANCEL, "ola", "no longer wanted")
    assert simulation.ask(entry) is entry
    assert reason_of(simulation, entry) is None


def test_p6_what_is_asked_for_changes_nothing_until_another_person_confirms_it() -> None:
    simulation = asked(guarded("CANCEL"))
    assert orders.stands(simulation) == "RUNNING"
    assert reason_of(simulation, simulation.confirm(simulation.act(), "kim")) is None
    act = simulation.act()
    assert (act.state, act.by, act.settled_by) == (ActState.CONFIRMED, "ola", "kim")
    assert orders.stands(simulation) == "COMPENSATING"


@pytest.mark.parametrize("by", ["ola", "OLA", " ola ", "\uff4fla", "o\u200bla", "\u00a0Ola"])
def test_p6_the_same_person_in_another_spelling_is_no_second_one(by: str) -> None:
    simulation = asked(guarded("CANCEL"))
    same_person = ErrorReason.ERROR_REASON_SAME_PERSON
    assert reason_of(simulation, simulation.confirm(simulation.act(), by)) == same_person
    assert orders.stands(simulation) == "RUNNING"


def test_p6_a_name_that_nobody_can_tell_confirms_nothing() -> None:
    simulation = asked(guarded("CANCEL"))
    ambiguous = ErrorReason.ERROR_REASON_AMBIGUOUS_NAME
    assert reason_of(simulation, simulation.confirm(simulation.act(), "\u043elaf")) == ambiguous
    assert reason_of(simulation, simulation.confirm(simulation.act(), "")) == ErrorReason.ERROR_REASON_MISSING_ROLE


def test_p6_the_confirmer_needs_the_role_of_the_act() -> None:
    simulation = asked(guarded("CANCEL"))
    for roles in ((), ("finance",), ("breakglass",)):
        refused = reason_of(simulation, simulation.confirm(simulation.act(), "kim", roles))
        assert refused == ErrorReason.ERROR_REASON_MISSING_ROLE, roles


def test_p6_a_confirmation_is_of_one_act_and_no_other() -> None:
    simulation = asked(guarded("CANCEL"))
    act = simulation.act()
    mismatch = ErrorReason.ERROR_REASON_DIGEST_MISMATCH
    assert reason_of(simulation, simulation.confirm(act, "kim", digest="00")) == mismatch
    # The digest is right, and what is done is something else.
    keeping = simulation.halt(CANCEL, "ola", "no longer wanted", keep_effects=True)
    assert reason_of(simulation, simulation.confirm(act, "kim", done=keeping)) == mismatch
    by_another = simulation.halt(CANCEL, "lou", "no longer wanted")
    assert reason_of(simulation, simulation.confirm(act, "kim", done=by_another)) == mismatch


def test_p6_a_confirmation_counts_in_time_by_the_clock_of_the_stream() -> None:
    simulation = asked(guarded("CANCEL", flow__confirm_within="600s"))
    act = simulation.act()
    simulation.now = act.expires + timedelta(microseconds=1)
    assert reason_of(simulation, simulation.confirm(act, "kim")) == ErrorReason.ERROR_REASON_ACT_CLOSED
    simulation.now = act.expires
    in_time = asked(guarded("CANCEL", flow__confirm_within="600s"))
    in_time.now = in_time.act().expires
    assert reason_of(in_time, in_time.confirm(in_time.act(), "kim")) is None


def test_p6_a_confirmation_is_used_once() -> None:
    simulation = asked(guarded("CANCEL", "COMPENSATE"))
    simulation.say(simulation.confirm(simulation.act(), "kim"))
    again = simulation.confirm(simulation.act(), "kim")
    assert reason_of(simulation, again) == ErrorReason.ERROR_REASON_ACT_CLOSED


def test_p6_what_was_withdrawn_is_not_confirmed_any_more() -> None:
    simulation = asked(guarded("CANCEL"))
    assert reason_of(simulation, simulation.withdraw(simulation.act(), "ola")) is None
    assert reason_of(simulation, simulation.withdraw(simulation.act(), "ola")) == ErrorReason.ERROR_REASON_ACT_CLOSED
    closed = reason_of(simulation, simulation.confirm(simulation.act(), "kim"))
    assert closed == ErrorReason.ERROR_REASON_ACT_CLOSED


def test_p6_whoever_breaks_the_glass_has_the_role_and_says_why() -> None:
    simulation = asked(guarded("CANCEL"))
    for roles, why in ((("operator",), "it burns"), (("breakglass",), ""), (("breakglass",), "  ")):
        assert reason_of(simulation, simulation.confirm(simulation.act(), "ola", roles, reason=why)), (roles, why)
    assert orders.stands(simulation) == "RUNNING"
    assert (
        reason_of(simulation, simulation.confirm(simulation.act(), "ola", ("breakglass",), reason="it burns")) is None
    )
    act = simulation.act()
    assert (act.state, act.settled_by, act.settle_reason) == (ActState.FORCED, "ola", "it burns")


def test_p6_a_request_is_of_the_act_it_holds_and_of_who_asked() -> None:
    simulation = guarded("CANCEL")
    halt = pack(FlowHalted(mode=CANCEL, by="ola", reason="no longer wanted"))
    digest = digest_of(simulation.flow.flow_id, halt)
    within = simulation.template.confirm_within
    for wrong in (
        ActRequested(act=halt, by="kim", digest=digest, persons=2),
        ActRequested(act=halt, by="", digest=digest, persons=2),
        ActRequested(act=halt, by="ola", digest="00", persons=2),
        ActRequested(act=halt, by="ola", digest=digest, persons=1),
        ActRequested(act=pack(FlowHalted(mode=CANCEL, reason="x")), by="", digest=digest, persons=2),
    ):
        wrong.confirm_within.FromTimedelta(within)
        entry = simulation.ask(simulation.halt(CANCEL, "ola", "no longer wanted"))
        entry.event.data.CopyFrom(pack(wrong))
        assert orders.void_of(simulation, entry) is not None, wrong
        simulation.now += timedelta(seconds=1)
    longer = simulation.ask(simulation.halt(CANCEL, "ola", "no longer wanted"))
    request = ActRequested.FromString(longer.event.data.value)
    request.confirm_within.FromTimedelta(within * 1000)
    longer.event.data.CopyFrom(pack(request))
    assert orders.void_of(simulation, longer) is not None
    assert not simulation.flow.acts


@dataclass(frozen=True)
class Try:
    """Somebody tries to have the flow ended: with a confirmation by `by`, or without (`by` is None)."""

    by: str | None
    roles: tuple[str, ...]
    right_digest: bool
    late: bool
    other_act: bool
    glass: str | None

    def counts(self, asker: str) -> bool:
        """What the rules say, told without the fold."""
        if self.by is None or self.late or self.other_act or not self.right_digest:
            return False
        if self.glass is not None:
            return "breakglass" in self.roles and bool(self.glass.strip())
        return "operator" in self.roles and self.by.strip().lower() != asker


TRIES = st.builds(
    Try,
    by=st.sampled_from([None, "ola", "OLA ", "kim", "lou"]),
    roles=st.sets(st.sampled_from(["operator", "finance", "breakglass"])).map(lambda roles: tuple(sorted(roles))),
    right_digest=st.sampled_from([True, True, True, False]),
    late=st.sampled_from([False, False, False, True]),
    other_act=st.sampled_from([False, False, False, True]),
    glass=st.sampled_from([None, None, "", "it burns"]),
)


@settings(max_examples=150)
@given(st.lists(TRIES, min_size=1, max_size=5))
def test_p4_p6_an_act_counts_if_and_only_if_the_rules_say_so(tries: list[Try]) -> None:
    simulation = asked(guarded("CANCEL", flow__confirm_within="600s"))
    act = simulation.act()
    for each in tries:
        if each.late:
            simulation.now = max(simulation.now, act.expires + timedelta(seconds=1))
        late = simulation.now > act.expires
        done = simulation.halt(CANCEL, "ola", "no longer wanted", keep_effects=each.other_act)
        entry = done
        if each.by is not None:
            digest = "" if each.right_digest else "00"
            entry = simulation.confirm(act, each.by, each.roles, digest=digest, reason=each.glass, done=done)
        counted = orders.void_of(simulation, entry) is None
        assert counted == (each.counts("ola") and not late), each
        assert simulation.flow == simulation.folded()
        if counted:
            return
    assert simulation.flow.halt is None or not simulation.flow.halt.by
