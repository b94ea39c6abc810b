"""What a run of the compliance demo draws, how it tampers, and that its audit accepts nothing but what was due."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.message import Message

from compliance.v1.compliance_pb2 import Check, CheckCompleted, CheckFailed
from demos.compliance import settings
from demos.compliance.approvals import Approval
from demos.compliance.audit import STATUS, Evidence, audit
from demos.compliance.checks.integrity import inspect
from demos.compliance.checks.licences import Policy
from demos.compliance.checks.names import Names
from demos.compliance.copies import can_be_copied, copy, tamper
from demos.compliance.expected import Expected, expect
from demos.compliance.history import History
from demos.compliance.installed import Environment
from demos.compliance.plan import Ending, Plan, Tampering, draw_copies
from demos.compliance.register import check_name
from demos.compliance.report import check_table, outcome_table, register_table
from handrail.mesh.wire.envelope import pack
from handrail.v1.decision_pb2 import Choice, Escalated, FlowStatus
from handrail.v1.event_pb2 import Event, RecordedEvent
from tests.support.distributions import METADATA, install

GOOD, CHANGED, LATER, ASKED = "good==1.0@e", "changed==1.0@e", "later==1.0@e", "asked==1.0@e"


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Expected]:
    """Four distributions: one without findings, one changed, one to be changed later, and one for a person."""
    site = tmp_path_factory.mktemp("site")
    install(site, "good")
    tamper(install(site, "changed"), rewrite_record=False)
    install(site, "later")
    install(site, "asked", metadata=METADATA.replace("MIT", "MPL-2.0"))
    policy, names = Policy.load(settings.SHIPPED_POLICY), Names.load(settings.SHIPPED_NAMES)
    return expect(Environment("e", site), policy, names)


PLAN = Plan({CHANGED: Tampering.BEFORE, LATER: Tampering.AFTER}, {ASKED: Choice.CHOICE_RESUME})


def history(expected: Expected) -> History:
    """A flow in which the agents said what the checks say."""
    said: list[Message] = [*expected.results.values()]
    said += [CheckFailed(check=check) for check in expected.failed]
    said += [Escalated()] if expected.needs_person else []
    return History([recorded(each) for each in said])


def recorded(message: Message) -> RecordedEvent:
    return RecordedEvent(type=message.DESCRIPTOR.full_name, event=Event(data=pack(message)))


def evidence(expected: Mapping[str, Expected]) -> Evidence:
    """What a run leaves in which everything went as it must."""
    endings = {key: PLAN.endings(key, each)[0] for key, each in expected.items()}
    approvals = [
        Approval(f"ap-{key}", key, each.fingerprint, tuple(map(check_name, each.failed)))
        for key, each in expected.items()
        if endings[key] is not Ending.NEVER_APPROVED
    ]
    statuses = {key: STATUS[how] for key, how in endings.items()}
    histories = {key: history(each) for key, each in expected.items()}
    return Evidence(statuses, histories, approvals, frozenset({f"ap-{LATER}"}))


def test_each_distribution_has_its_ending(expected: dict[str, Expected]) -> None:
    assert {key: list(PLAN.endings(key, each)) for key, each in expected.items()} == {
        GOOD: [Ending.APPROVED],
        CHANGED: [Ending.NEVER_APPROVED],
        LATER: [Ending.WITHDRAWN],
        ASKED: [Ending.GRANTED],
    }
    assert audit(expected, PLAN, evidence(expected)) == []


Change = Callable[[Evidence, Mapping[str, Expected]], Evidence]


def without(key: str) -> Change:
    return lambda found, _: replace(found, approvals=[each for each in found.approvals if each.distribution != key])


def with_approval(key: str, *, fingerprint: str = "", remarks: tuple[str, ...] = ()) -> Change:
    def change(found: Evidence, expected: Mapping[str, Expected]) -> Evidence:
        of = fingerprint or expected.get(key, expected[GOOD]).fingerprint
        others = [each for each in found.approvals if each.distribution != key or not (fingerprint or remarks)]
        return replace(found, approvals=[*others, Approval("ap-new", key, of, remarks)])

    return change


def saying(key: str, change: Callable[[list[Message]], list[Message]]) -> Change:
    def changed(found: Evidence, expected: Mapping[str, Expected]) -> Evidence:
        said = change([*expected[key].results.values()])
        return replace(found, histories={**found.histories, key: History([recorded(each) for each in said])})

    return changed


def ended(key: str, status: FlowStatus.ValueType) -> Change:
    return lambda found, _: replace(found, statuses={**found.statuses, key: status})


@pytest.mark.parametrize(
    "change, says",
    [
        (ended(GOOD, FlowStatus.FLOW_STATUS_ESCALATED), f"{GOOD}: its flow is ESCALATED, expected: approved"),
        (ended(LATER, FlowStatus.FLOW_STATUS_COMPLETED), f"{LATER}: its flow is COMPLETED, expected: tampered with"),
        (without(GOOD), f"{GOOD}: the register has 0 approvals of it, not 1"),
        (with_approval(GOOD), f"{GOOD}: the register has 2 approvals of it, not 1"),
        (with_approval(CHANGED), f"{CHANGED}: the register has 1 approvals of it, not 0"),
        (with_approval(GOOD, fingerprint="f" * 64), f"{GOOD}: approval ap-new has another fingerprint"),
        (with_approval(GOOD, remarks=("names",)), f"{GOOD}: approval ap-new has the remarks names"),
        (with_approval("stranger==1@e"), "the register has stranger==1@e, which is not a distribution of this run"),
        (lambda found, _: replace(found, withdrawn=frozenset()), f"{LATER}: approval ap-{LATER} is not withdrawn"),
        (
            lambda found, _: replace(found, withdrawn=found.withdrawn | {f"ap-{GOOD}"}),
            f"{GOOD}: approval ap-{GOOD} is withdrawn",
        ),
        (saying(GOOD, lambda said: said[1:]), f"{GOOD}: check licences was completed 0 times"),
        (saying(GOOD, lambda said: [*said, said[0]]), f"{GOOD}: check licences was completed 2 times"),
        (
            saying(GOOD, lambda said: [CheckCompleted(check=Check.CHECK_LICENCES, passed=True), *said[1:]]),
            f"{GOOD}: check licences found nothing, expected: nothing",
        ),
        (saying(GOOD, lambda said: [*said, Escalated()]), f"{GOOD}: it does not need a person"),
        (
            saying(ASKED, lambda said: said),
            f"{ASKED}: CheckFailed was published for none, but the failed checks are licences",
        ),
    ],
)
def test_whatever_is_otherwise_is_wrong(change: Change, says: str, expected: dict[str, Expected]) -> None:
    assert any(complaint.startswith(says) for complaint in audit(expected, PLAN, change(evidence(expected), expected)))


def test_a_plan_follows_from_the_seed(expected: dict[str, Expected]) -> None:
    tampering = draw_copies(["a", "b", "c", "d", "e"], 7)
    assert tampering == draw_copies(["e", "d", "c", "b", "a"], 7)
    assert set(tampering.values()) == set(Tampering)
    assert draw_copies([], 7) == {}
    assert list(draw_copies(["a"], 7).values()) == [Tampering.AFTER]
    assert Plan.draw({}, expected, 1).answers == {ASKED: Choice.CHOICE_RESUME}
    asked = {f"{number}": expected[ASKED] for number in range(9)}
    answers = Plan.draw({}, asked, 1).answers
    assert answers == Plan.draw({}, asked, 1).answers
    assert list(answers.values()).count(Choice.CHOICE_CANCEL) == 3


def test_a_copy_is_whole_and_what_was_copied_stays_as_it_is(tmp_path: Path) -> None:
    original = install(tmp_path / "site", "original", files={"original/__init__.py": b"", "original/a.txt": b"x"})
    before = inspect(original).fingerprint
    copied = copy(original, Environment("copies", tmp_path / "copies"))
    assert copied.key == "original==1.0@copies"
    assert inspect(copied).fingerprint == before
    assert tamper(copied, rewrite_record=False) == "original/__init__.py"
    assert [each.subject for each in inspect(copied).changed] == ["original/__init__.py"]
    assert inspect(original).fingerprint == before


def test_only_what_is_whole_by_itself_is_copied(tmp_path: Path) -> None:
    assert can_be_copied(install(tmp_path, "alone", also="Requires-Dist: x; extra == 'y'\n"))
    assert not can_be_copied(install(tmp_path, "needy", also="Requires-Dist: x\n"))
    assert not can_be_copied(install(tmp_path, "codeless", files={"codeless.txt": b""}))
    script = install(tmp_path, "script")
    with (script.folder / "RECORD").open("a") as record:
        record.write("../../../bin/script,sha256=ab,1\n")
    assert not can_be_copied(script)


def test_the_tables_count_what_there_is(expected: dict[str, Expected]) -> None:
    found = evidence(expected)
    rows = [line.split() for line in check_table(found.histories)]
    assert ["licences", "3", "1"] in rows
    assert ["LICENCE_NEEDS_PERSON", "1"] in rows
    assert ["integrity", "3", "1"] in rows
    outcomes = outcome_table({key: PLAN.endings(key, each)[0] for key, each in expected.items()})
    assert [line.split()[-1] for line in outcomes[2:]] == ["1", "0", "1", "0", "1", "1"]
    assert [line.split()[-1] for line in register_table(found.approvals, found.withdrawn)[2:]] == ["2", "1", "1"]
