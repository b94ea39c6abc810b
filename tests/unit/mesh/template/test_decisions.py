"""Activations and the policy, as every reader of the TEMPLATE stream judges them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import Message

from handrail.mesh.template.decisions import Decided, TemplateAct, TemplateDecisions, bare, requested
from handrail.mesh.template.persons import ActState
from handrail.mesh.wire.subjects import POLICY, activation_subject, pending_subject, withdrawn_subject
from handrail.v1.act_pb2 import Act, ActConfirmation
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import Activation, InstallationPolicy, TemplateActWithdrawn

TWO_PERSONS_NEEDED = ErrorReason.ERROR_REASON_TWO_PERSONS_NEEDED


@dataclass
class Stream:
    """The TEMPLATE stream as one reader sees it."""

    decisions: TemplateDecisions = field(default_factory=TemplateDecisions)
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC)
    sequence: int = 0

    def store(self, subject: str, message: Message) -> ErrorReason.ValueType | None:
        """Stores a message; why it does not count, or None where it does."""
        self.sequence += 1
        taken = self.decisions.take(subject, message.SerializeToString(), sequence=self.sequence, time=self.now)
        assert taken is not None, f"{subject} is none of these"
        refused = self.decisions.refused.get(subject)
        return None if refused is None else refused.reason

    def decide(self, name: str, decided: Decided) -> ErrorReason.ValueType | None:
        """One person has something recorded."""
        return self.store(activation_subject(name, self.decisions.next_number(name, "active")), decided)

    def ask(self, name: str, decided: Decided) -> TemplateAct:
        """One person asks for a second one."""
        number = self.decisions.next_number(name, "pending")
        assert self.store(pending_subject(name, number), requested(self.decisions, name, decided)) is None
        return list(self.decisions.acts.values())[-1]

    def confirm(
        self, act: TemplateAct, by: str, *roles: str, digest: str = "", why: str = "", other: Decided | None = None
    ) -> ErrorReason.ValueType | None:
        """A second person has it recorded, or something else."""
        decided = act.decided if other is None else other
        said = ActConfirmation(
            act_id=act.act_id,
            by=by,
            roles=roles or ("template_admin",),
            digest=digest or act.digest,
            break_glass=bool(why),
            reason=why,
        )
        decided.confirmation.CopyFrom(said)
        return self.decide(act.name, decided)

    def active(self, name: str = "refund") -> int:
        """The version that new flows begin with."""
        log = self.decisions.log(name)
        return log[-1].activation.version if log else 0


def activation(version: int, by: str = "ola") -> Activation:
    return Activation(version=version, by=by, reason="as agreed")


def policy(*acts: Act.ValueType, by: str = "ola") -> InstallationPolicy:
    return InstallationPolicy(require_two=acts, by=by, reason="as agreed")


@pytest.fixture
def stream() -> Stream:
    """An installation in which nobody activates alone; version 1 was active before."""
    stream = Stream()
    assert stream.decide("refund", activation(1)) is None
    assert stream.decide(POLICY, policy(Act.ACT_ACTIVATE)) is None
    return stream


def test_without_a_policy_one_person_activates() -> None:
    stream = Stream()
    assert stream.decide("refund", activation(1)) is None
    assert stream.decide("refund", activation(2)) is None
    assert stream.active() == 2


def test_p6_with_a_policy_one_person_activates_nothing(stream: Stream) -> None:
    assert stream.decide("refund", activation(2)) == TWO_PERSONS_NEEDED
    assert stream.decide("other", activation(1)) == TWO_PERSONS_NEEDED
    assert (stream.active(), stream.active("other")) == (1, 0)


def test_p6_a_second_person_activates_what_one_asked_for(stream: Stream) -> None:
    act = stream.ask("refund", activation(2))
    assert stream.active() == 1
    assert stream.confirm(act, "kim") is None
    assert stream.active() == 2
    settled = stream.decisions.acts[act.act_id]
    assert (settled.state, settled.settled_by) == (ActState.CONFIRMED, "kim")
    assert stream.confirm(act, "kim") == ErrorReason.ERROR_REASON_ACT_CLOSED, "once"


def test_p6_a_void_activation_does_not_block_the_next(stream: Stream) -> None:
    assert stream.decide("refund", activation(2)) == TWO_PERSONS_NEEDED
    assert stream.confirm(stream.ask("refund", activation(2)), "kim") is None
    assert [each.activation.version for each in stream.decisions.log("refund")] == [1, 2]


@pytest.mark.parametrize("by", ["ola", " OLA", "o\u200bla"])
def test_p6_who_asked_to_activate_is_no_second_person(stream: Stream, by: str) -> None:
    assert stream.confirm(stream.ask("refund", activation(2)), by) == ErrorReason.ERROR_REASON_SAME_PERSON
    assert stream.active() == 1


def test_p6_a_confirmation_is_of_one_activation_in_time_with_the_role(stream: Stream) -> None:
    act = stream.ask("refund", activation(2))
    assert stream.confirm(act, "kim", digest="00") == ErrorReason.ERROR_REASON_DIGEST_MISMATCH
    assert stream.confirm(act, "kim", other=activation(3)) == ErrorReason.ERROR_REASON_DIGEST_MISMATCH
    assert stream.confirm(act, "kim", "operator") == ErrorReason.ERROR_REASON_MISSING_ROLE
    stream.now = act.expires + timedelta(seconds=1)
    assert stream.confirm(act, "kim") == ErrorReason.ERROR_REASON_ACT_CLOSED
    assert stream.active() == 1


def test_p6_the_confirmation_of_one_template_activates_no_other(stream: Stream) -> None:
    act = stream.ask("refund", activation(2))
    other = activation(2)
    other.confirmation.CopyFrom(
        ActConfirmation(act_id=act.act_id, by="kim", roles=["template_admin"], digest=act.digest)
    )
    assert stream.decide("other", other) == ErrorReason.ERROR_REASON_DIGEST_MISMATCH


def test_p6_what_was_withdrawn_is_not_activated(stream: Stream) -> None:
    act = stream.ask("refund", activation(2))
    assert stream.store(withdrawn_subject("refund", act.number), TemplateActWithdrawn(by="ola", reason="no")) is None
    assert stream.confirm(act, "kim") == ErrorReason.ERROR_REASON_ACT_CLOSED
    assert stream.store(withdrawn_subject("refund", 9), TemplateActWithdrawn(by="ola")) is not None


def test_p6_breaking_the_glass_takes_the_role_and_a_reason(stream: Stream) -> None:
    act = stream.ask("refund", activation(2))
    assert stream.confirm(act, "ola", why="it burns") == ErrorReason.ERROR_REASON_MISSING_ROLE
    assert stream.confirm(act, "ola", "breakglass", why=" ") == TWO_PERSONS_NEEDED
    assert stream.confirm(act, "ola", "breakglass", why="it burns") is None
    assert stream.decisions.acts[act.act_id].state is ActState.FORCED


def test_p6_a_policy_is_not_taken_back_alone(stream: Stream) -> None:
    assert stream.decisions.require_two == {Act.ACT_ACTIVATE, Act.ACT_CHANGE_POLICY}
    assert stream.decide(POLICY, policy()) == TWO_PERSONS_NEEDED
    act = stream.ask(POLICY, policy())
    assert stream.confirm(act, "ola") == ErrorReason.ERROR_REASON_SAME_PERSON
    assert stream.confirm(act, "kim") is None
    assert not stream.decisions.require_two
    assert stream.decide("refund", activation(2)) is None


def test_p4_what_is_asked_for_and_how_long_it_waits_is_the_policys_to_say(stream: Stream) -> None:
    fine = requested(stream.decisions, "refund", activation(2))
    for field_, value in (("by", "kim"), ("digest", "00"), ("persons", 1)):
        wrong = type(fine)()
        wrong.CopyFrom(fine)
        setattr(wrong, field_, value)
        assert stream.store(pending_subject("refund", 7), wrong) is not None, field_
    longer = type(fine)()
    longer.CopyFrom(fine)
    longer.confirm_within.FromTimedelta(timedelta(days=300))
    assert stream.store(pending_subject("refund", 8), longer) is not None
    assert not stream.decisions.acts


def test_the_act_is_what_is_recorded_without_what_is_known_only_then() -> None:
    full = activation(2)
    full.time.GetCurrentTime()
    full.request.id = "x"
    full.confirmation.by = "kim"
    assert bare(full) == bare(activation(2))
