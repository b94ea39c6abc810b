"""Permissions on the broker follow from the templates, and from nothing else."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh import permissions
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import Credentials, Reader, User, accounts, matches, places, render, users
from handrail.mesh.permissions.group import Group
from handrail.mesh.streams import FLOW, TIMER, quarantine_stream, stream_configs
from handrail.mesh.streams.durables import DECIDE, DUE, TRACK
from handrail.mesh.wire.subjects import (
    Address,
    Kind,
    activation_subject,
    purged_subject,
    template_subject,
    timer_subject,
)
from handrail.v1.template_pb2 import FlowTemplate, Step, Undo
from tests.support.accounts import asked_and_granted

FLOW_ID, EVENT_ID = "a" * 32, "b" * 32
OUTSIDE = (accounts.AGENTS, accounts.READERS, accounts.VIEWERS)
OWN = ("HANDRAIL", "COORDINATOR", "SETUP", "RETENTION", "VISIBILITY", "SYS")
RESERVED_KINDS = (Kind.RELEASED, Kind.RETRY, Kind.UNDO, Kind.DECISION)


def refund(version: int = 1, *, gated: bool = True) -> FlowTemplate:
    undo = Undo(emits=["shop.v1.Reversed"])
    pay = Step(name="pay", agent="ledger", after=["shop.v1.Granted"], emits=["shop.v1.Paid"], undo=undo)
    template = asked_and_granted(pay, version=version)
    if gated:
        template.gates.add(name="large", on="shop.v1.Granted")
    return template


def user(name: str, *templates: FlowTemplate) -> User:
    return next(each for each in users(templates or [refund()]) if each.name == name)


def subject(kind: Kind, agent: str, message: str, *, flow_type: str = "refund") -> str:
    return Address(flow_type, FLOW_ID, kind, agent, EVENT_ID, message).subject


def test_an_agent_may_publish_what_its_steps_emit() -> None:
    ledger = user("ledger")
    assert ledger.may_publish(subject(Kind.EVENT, "ledger", "shop.v1.Paid"))
    assert ledger.may_publish(subject(Kind.UNDONE, "ledger", "shop.v1.Reversed"))
    assert ledger.may_publish(subject(Kind.UNDONE, "ledger", "handrail.v1.StepCompleted"))
    assert ledger.may_publish(subject(Kind.FAILURE, "ledger", "handrail.v1.StepFailed"))
    assert ledger.may_publish(subject(Kind.FAILURE, "ledger", "handrail.v1.StepNotStarted"))
    assert ledger.may_publish(subject(Kind.PROGRESS, "ledger", "handrail.v1.StepProgress"))
    assert ledger.may_publish(subject(Kind.DIVERGENCE, "ledger", "handrail.v1.Divergence"))
    assert ledger.may_publish(f"quarantine.refund.{FLOW_ID}.ledger.refunds.{EVENT_ID}")


def test_any_step_may_answer_with_nothing() -> None:
    template = refund()
    assert user("ledger", template).may_publish(subject(Kind.EVENT, "ledger", "handrail.v1.StepCompleted"))
    template.steps[1].ClearField("emits")
    assert user("ledger", template).may_publish(subject(Kind.EVENT, "ledger", "handrail.v1.StepCompleted"))


def test_an_agent_may_publish_nothing_else_p6() -> None:
    ledger = user("ledger")
    assert not ledger.may_publish(subject(Kind.EVENT, "ledger", "shop.v1.Granted"))
    assert not ledger.may_publish(subject(Kind.UNDONE, "ledger", "shop.v1.Paid"))
    assert not ledger.may_publish(subject(Kind.EVENT, "refunds", "shop.v1.Paid"))
    assert not ledger.may_publish(subject(Kind.EVENT, "ledger", "shop.v1.Paid", flow_type="order"))
    assert not ledger.may_publish(f"quarantine.refund.{FLOW_ID}.refunds.ledger.{EVENT_ID}")
    assert not ledger.may_publish(f"quarantine.refund.{FLOW_ID}.coordinator.ledger.{EVENT_ID}")
    assert not ledger.may_publish("key.refund." + "c" * 64)
    assert not ledger.may_publish("$JS.API.CONSUMER.MSG.NEXT.FLOW.agent-refunds")
    assert not ledger.may_publish("$JS.ACK.FLOW.agent-refunds.1.2.3.4.5")


def test_a_gated_message_may_come_as_a_proposal_only_p6() -> None:
    refunds = user("refunds")
    assert refunds.may_publish(subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted"))
    assert not refunds.may_publish(subject(Kind.EVENT, "refunds", "shop.v1.Granted"))


def test_where_versions_differ_an_agent_serves_both() -> None:
    refunds = user("refunds", refund(1, gated=False), refund(2))
    assert refunds.may_publish(subject(Kind.PROPOSAL, "refunds", "shop.v1.Granted"))
    assert refunds.may_publish(subject(Kind.EVENT, "refunds", "shop.v1.Granted"))


def test_only_an_agent_that_starts_flows_may_publish_first_events_and_keys() -> None:
    assert user("desk").may_publish(subject(Kind.EVENT, "desk", "shop.v1.Asked"))
    assert user("desk").may_publish("key.refund." + "c" * 64)
    assert not user("desk").may_publish("key.order." + "c" * 64)
    assert not user("desk").may_publish(purged_subject("refund", "c" * 32, 7))
    assert not user("ledger").may_publish(subject(Kind.EVENT, "ledger", "shop.v1.Asked"))


def test_the_viewer_may_publish_to_reading_services_only() -> None:
    assert all(re.match(r"\$JS\.API\.(INFO|[A-Z.]*(GET|INFO)\.)", each) for each in user("viewer").publish)


def test_the_viewer_reads_the_quarantines_of_the_agents_and_no_other_stream_p6() -> None:
    viewer = user("viewer")
    for stream in ("FLOW", "QUARANTINE", "QUARANTINE_desk", "QUARANTINE_ledger"):
        assert viewer.may_publish(f"$JS.API.DIRECT.GET.{stream}")
    for stream in ("DELEGATION", "KV_leases", "ABSENCE", "QUARANTINE_stranger"):
        assert not viewer.may_publish(f"$JS.API.DIRECT.GET.{stream}")
        assert not viewer.may_publish(f"$JS.API.DIRECT.GET.{stream}.x")
        assert not viewer.may_publish(f"$JS.API.STREAM.INFO.{stream}")
    assert all(any(covers(wide, asked) for wide in accounts.VIEWERS.services) for asked in viewer.publish)


def test_the_coordinator_creates_our_streams_and_no_other_p2() -> None:
    coordinator = user("coordinator")
    ours = [*stream_configs(), *map(quarantine_stream, ("desk", "refunds", "ledger"))]
    assert all(coordinator.may_publish(f"$JS.API.STREAM.CREATE.{stream}") for stream in ours)
    assert not any(coordinator.may_publish(f"$JS.API.STREAM.CREATE.{stream}") for stream in ("X", "QUARANTINE_other"))


def test_the_coordinator_settles_for_its_own_durables_p2() -> None:
    own = {(FLOW, DECIDE), (FLOW, TRACK), (FLOW, f"{DECIDE}-beside"), (FLOW, f"{TRACK}-beside"), (TIMER, DUE)}
    assert set(accounts.SETTLED_BY_RUN_TIME) == own
    assert user("coordinator").may_publish(f"$JS.ACK.FLOW.{DECIDE}.1.2.3.4.5")
    assert not user("coordinator").may_publish("$JS.ACK.FLOW.agent-ledger.1.2.3.4.5")


@pytest.mark.parametrize(
    "group", [accounts.RUN_TIME, accounts.RETAINING, accounts.FOLLOWING], ids=lambda group: group.name
)
def test_no_update_and_no_end_of_a_stream_passes_from_run_time_p2(group: Group) -> None:
    for asked in ("UPDATE.FLOW", "DELETE.FLOW", "MSG.DELETE.FLOW", "RESTORE.FLOW", "PURGE.TEMPLATE"):
        assert not any(matches(pattern, f"$JS.API.STREAM.{asked}") for pattern in group.services), asked


def covers(wide: str, pattern: str) -> bool:
    """Whether a pattern matches everything that another one matches, apart from a `>` at the end of both."""
    return wide == pattern or matches(wide, pattern)


@pytest.mark.parametrize("name", sorted(permissions.RESERVED))
def test_no_agent_takes_the_name_of_another_user(name: str) -> None:
    template = refund()
    template.steps[0].agent = name
    with pytest.raises(HandrailError, match=name):
        users([template])


@pytest.mark.parametrize("name", ["", "*", ">", "a.b", "a b", "A", "a" * 64, "ledger\n"])
def test_a_name_that_is_no_subject_token_is_refused(name: str) -> None:
    for where in ("flow type", "agent", "starter"):
        template = refund()
        if where == "flow type":
            template.name = name
        elif where == "agent":
            template.steps[0].agent = name
        else:
            template.started_by[0] = name
        with pytest.raises(HandrailError):
            users([template])


@pytest.mark.parametrize("message", ["", "*", "shop.>", "shop..Paid", "shop.v1.Paid Paid", ">"])
def test_a_message_that_is_no_message_name_is_refused(message: str) -> None:
    template = refund()
    template.steps[1].emits[0] = message
    with pytest.raises(HandrailError):
        users([template])


def test_every_user_needs_credentials() -> None:
    everybody = users([refund()])
    given = {each.name: Credentials(password="x") for each in everybody if each.name not in ("ledger", "refunds")}
    with pytest.raises(HandrailError, match="ledger, refunds"):
        render(everybody, given)


def rendered_accounts(*templates: FlowTemplate, **more: Any) -> dict[str, Any]:
    everybody = users(templates, **more)
    text = render(everybody, {each.name: Credentials(password=f"secret of {each.name}") for each in everybody})
    accounts_: dict[str, Any] = json.loads(text[text.index("{") :])
    return accounts_


def test_everybody_outside_has_an_account_of_its_own_p6() -> None:
    readers = [Reader("analytics", ("refund",))]
    by_account = {
        name: [each["user"] for each in account["users"]]
        for name, account in rendered_accounts(refund(), readers=readers).items()
        if account["users"]
    }
    assert by_account == {
        "HANDRAIL": ["admin"],
        "COORDINATOR": ["coordinator"],
        "SETUP": ["setup"],
        "RETENTION": ["retention"],
        "VISIBILITY": ["visibility"],
        "SYS": ["monitor", "sys"],
        "VIEWERS": ["viewer"],
        "AGENTS_1": ["desk"],
        "AGENTS_2": ["ledger"],
        "AGENTS_3": ["refunds"],
        "READERS_1": ["analytics"],
    }


def test_an_account_of_agents_readers_or_viewers_is_limited() -> None:
    found = rendered_accounts(refund(), readers=[Reader("analytics", ("refund",))])
    for name, account in found.items():
        if name not in OWN:
            assert account["limits"].keys() == {"max_connections", "max_subscriptions", "max_payload"}, name


def test_a_user_may_have_several_nkeys() -> None:
    everybody = users([refund()])
    given = {each.name: Credentials(password="x") for each in everybody} | {"ledger": Credentials(nkeys=("UA", "UB"))}
    text = render(everybody, given)
    entries = json.loads(text[text.index("{") :])["AGENTS_2"]["users"]
    assert [each["nkey"] for each in entries] == ["UA", "UB"]
    assert entries[0]["permissions"] == entries[1]["permissions"]


def test_the_broker_does_not_know_who_is_suspended() -> None:
    readers = [Reader("analytics", ("refund",))]
    found = rendered_accounts(refund(), readers=readers, suspended=("ledger", "analytics"))
    known = {each["user"] for account in found.values() for each in account["users"]}
    assert {"desk", "refunds"} <= known
    assert not known & {"ledger", "analytics"}


def test_an_agent_keeps_its_place_when_others_come() -> None:
    before = places(users([refund()]), {})
    more = refund()
    more.steps.add(name="audit", agent="audit", after=["shop.v1.Paid"])
    after = places(users([more]), before)
    assert after == before | {"audit": 3}


def test_agents_share_accounts_only_when_none_is_free() -> None:
    found = [accounts.AGENTS.account(place) for place in range(accounts.AGENTS.number)]
    assert len(set(found)) == accounts.AGENTS.number
    assert accounts.AGENTS.account(accounts.AGENTS.number) == found[0]


def test_a_reader_hears_answers_and_says_nothing_p6() -> None:
    reader = Reader("analytics", ("refund", "loan")).user()
    assert reader.may_subscribe("_INBOX_analytics.x")
    assert not reader.may_subscribe(subject(Kind.EVENT, "ledger", "shop.v1.Paid"))
    assert not reader.may_publish(subject(Kind.EVENT, "ledger", "shop.v1.Paid"))
    assert not reader.may_publish("$JS.API.CONSUMER.RESET.FLOW.agent-ledger")
    assert not reader.may_publish("$JS.API.CONSUMER.CREATE.FLOW.reader-analytics")


@pytest.mark.parametrize("name", ["ledger", "coordinator", "setup", "Analytics", "a.b"])
def test_a_reader_takes_nobody_elses_name(name: str) -> None:
    with pytest.raises(HandrailError):
        users([refund()], readers=[Reader(name, ("refund",))])


def test_what_passes_between_the_accounts_does_not_depend_on_templates_p6() -> None:
    without, with_one = (
        {name: {**account, "users": []} for name, account in found.items()}
        for found in (rendered_accounts(), rendered_accounts(refund(), readers=[Reader("analytics", ("refund",))]))
    )
    assert without == with_one


@given(
    kind=st.sampled_from(RESERVED_KINDS),
    agent=st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True),
    message=st.sampled_from(["shop.v1.Paid", "handrail.v1.FlowHalted", "handrail.v1.ApprovalGiven"]),
)
def test_nothing_of_the_coordinators_passes_out_of_an_account_outside_p6(kind: Kind, agent: str, message: str) -> None:
    for group in OUTSIDE:
        assert not any(matches(pattern, subject(kind, agent, message)) for pattern in group.services), group.name


@pytest.mark.parametrize(
    "forbidden",
    [
        timer_subject("refund", FLOW_ID, "deadline"),
        f"due.refund.{FLOW_ID}.deadline",
        template_subject("refund", 2),
        activation_subject("refund", 1),
        "$KV.leases.flow.refund",
        "$KV.leases.presence",
        "absence.1893456000000",
        "$JS.API.STREAM.CREATE.FLOW",
        "$JS.API.STREAM.UPDATE.FLOW",
        "$JS.API.STREAM.DELETE.FLOW",
        "$JS.API.STREAM.PURGE.FLOW",
        "$JS.API.STREAM.MSG.DELETE.FLOW",
        "$JS.API.CONSUMER.CREATE.FLOW.agent-ledger",
        "$JS.API.CONSUMER.DELETE.FLOW.agent-ledger",
        "$JS.API.STREAM.MSG.GET.KV_leases",
    ],
)
def test_timers_templates_leases_and_management_are_the_coordinators_alone_p6(forbidden: str) -> None:
    for each in users([refund()]):
        if each.group in OUTSIDE:
            assert not each.may_publish(forbidden), each.name
    for group in OUTSIDE:
        assert not any(matches(pattern, forbidden) for pattern in group.services), group.name


@given(
    subject_tokens=st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=5),
    pattern_tokens=st.lists(st.sampled_from(["a", "b", "*"]), min_size=1, max_size=4),
    tail=st.booleans(),
)
def test_wildcards_match_as_on_the_broker(subject_tokens: list[str], pattern_tokens: list[str], tail: bool) -> None:
    pattern = ".".join([*pattern_tokens, ">"] if tail else pattern_tokens)
    expression = pattern.replace(".", r"\.").replace("*", "[^.]+").replace(">", ".+")
    assert matches(pattern, ".".join(subject_tokens)) == bool(re.fullmatch(expression, ".".join(subject_tokens)))


def test_comments_name_the_users_for_whom_the_broker_knows_a_public_key_alone() -> None:
    everybody = users([refund()])
    text = render(everybody, {each.name: Credentials(nkeys=(f"U{each.name}",)) for each in everybody})
    assert "\n# ledger: AGENTS_2 Uledger\n" in text
    assert "\n# coordinator: COORDINATOR Ucoordinator\n" in text
