"""Old and new contracts in one mesh: agents built with the one read what agents built with the other wrote."""

from datetime import timedelta

import pytest
from google.protobuf.descriptor_pb2 import EnumDescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from handrail.agents import Agent, Context
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire.subjects import Kind
from handrail.testing import FlowView, World
from handrail.validate import validate_pb2
from tests.support.shop import set_of, shop_file

TEMPLATE = """
name: order
version: VERSION
starts_with: [shop.v1.Asked]
completes_with: [shop.v1.Done]
deadline: 86400s
steps:
  - name: answer
    agent: answering
    after: [shop.v1.Asked]
    emits: [shop.v1.Answered]
    effect: UNDOABLE
    timeout: 30s
    undo: {timeout: 30s}
  - name: end
    agent: ending
    after: [shop.v1.Answered]
    emits: [shop.v1.Done]
    effect: NONE
    timeout: 30s
    retry: {max_attempts: 2}
"""
GATE = """
gates:
  - {name: look, on: shop.v1.Answered, when: event.asked.amount > 10, approvers: {roles: [finance]},
     expires_after: 600s, on_reject: COMPENSATE}
"""
NOTING = """
  - name: note
    agent: noting
    after: [shop.v1.Asked]
    emits: [shop.v1.Noted]
    effect: NONE
    timeout: 30s
"""


def contracts(*, new: bool, defined_only: bool = False) -> Contracts:
    """shop.v1 as it was; or with another field, another enum value and another message."""
    messages = {
        "Asked": {"amount": "int64"} | ({"note": "string"} if new else {}),
        "Answered": {"asked": "shop.v1.Asked"} | ({"remark": "string"} if new else {}),
        "Done": {"asked": "shop.v1.Asked"},
    }
    noted = {"Noted": {"text": "string"}} if new else {}
    file = shop_file(messages | noted, imports=("buf/validate/validate.proto",))
    file.enum_type.append(EnumDescriptorProto(name="Size"))
    for number, name in enumerate(("SIZE_UNSPECIFIED", "SIZE_SMALL", *(("SIZE_LARGE",) if new else ()))):
        file.enum_type[0].value.add(name=name, number=number)
    size = file.message_type[1].field.add(name="size", number=9, label=1)
    size.type, size.type_name = FieldDescriptorProto.TYPE_ENUM, ".shop.v1.Size"
    size.options.Extensions[validate_pb2.field].enum.defined_only = defined_only
    return Contracts.from_descriptor_set(set_of(file))


OLD, NEW = contracts(new=False), contracts(new=True)


def template(of: Contracts, *, version: int = 1, text: str = TEMPLATE) -> Template:
    return Template.compile(load_yaml(text.replace("VERSION", str(version))), of)


def message(of: Contracts, name: str, **fields: object) -> Message:
    return of.message_class(f"shop.v1.{name}")(**fields)


class Shop:
    """The agents of the template, each built with contracts of its own; `seen` is what their handlers were given."""

    def __init__(self, answering: Contracts, ending: Contracts) -> None:
        self.answering, self.ending = Agent("answering"), Agent("ending")
        self.seen: list[Message] = []
        self.undone: list[Message] = []
        self.fails = False
        Asked, Answered = answering.message_class("shop.v1.Asked"), answering.message_class("shop.v1.Answered")
        Passed, Done = ending.message_class("shop.v1.Answered"), ending.message_class("shop.v1.Done")

        @self.answering.on(Asked)
        def answer(event: Asked, ctx: Context) -> Answered:  # type: ignore[valid-type]
            self.seen.append(event)
            new = {"remark": "a word", "size": 2} if answering is NEW else {}
            return Answered(asked=event, **new)

        @self.answering.undoes(Answered)
        def take_back(event: Answered, ctx: Context) -> None:  # type: ignore[valid-type]
            self.undone.append(event)

        @self.ending.on(Passed)
        def end(event: Passed, ctx: Context) -> Done:  # type: ignore[valid-type]
            self.seen.append(event)
            if self.fails and ctx.attempt == 1:
                raise RuntimeError("not yet")
            return Done(asked=event.asked)  # type: ignore[attr-defined]

    @property
    def agents(self) -> tuple[Agent, Agent]:
        return self.answering, self.ending


def fact(flow: FlowView, name: str, of: Contracts) -> Message:
    """The one fact of this type, read with these contracts."""
    (recorded,) = [each for each in flow.history if each.type == f"shop.v1.{name}" and each.kind is not Kind.PROPOSAL]
    return of.decode(recorded.event.data)


async def test_an_old_agent_passes_on_a_field_that_it_does_not_know() -> None:
    shop = Shop(answering=OLD, ending=OLD)
    async with World(templates=[template(NEW)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5, note="please"))
        assert flow.status == "COMPLETED"
        assert fact(flow, "Done", NEW).asked.note == "please"  # type: ignore[attr-defined]
        assert not flow.flow.void


async def test_a_new_agent_reads_an_old_event_with_the_field_at_its_default() -> None:
    shop = Shop(answering=NEW, ending=NEW)
    async with World(templates=[template(OLD)], agents=shop.agents) as world:
        flow = await world.start("order", message(OLD, "Asked", amount=5))
        assert flow.status == "COMPLETED"
        asked, answered = shop.seen
        assert (asked.amount, asked.note) == (5, "")  # type: ignore[attr-defined]
        assert answered.remark == "a word"  # type: ignore[attr-defined]


@pytest.mark.parametrize("answering,ending", [(OLD, NEW), (NEW, OLD)], ids=["old-then-new", "new-then-old"])
@pytest.mark.parametrize("stored", [OLD, NEW], ids=["old-version", "new-version"])
async def test_agents_of_before_and_after_work_side_by_side_in_flows_of_either_version(
    answering: Contracts, ending: Contracts, stored: Contracts
) -> None:
    shop = Shop(answering, ending)
    async with World(templates=[template(stored)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5, note="please"))
        assert flow.status == "COMPLETED"
        assert not flow.flow.void
        # Whoever read it in between, and whatever the version knows: nothing got lost.
        assert fact(flow, "Done", NEW).asked.note == "please"  # type: ignore[attr-defined]
        assert fact(flow, "Answered", NEW).size == (2 if answering is NEW else 0)  # type: ignore[attr-defined]


async def test_a_value_that_the_flows_version_does_not_define_is_refused_where_its_contract_says_so() -> None:
    """Whose contract counts: the one stored with the flow's version, not the one that the agent was built with."""
    shop = Shop(answering=NEW, ending=NEW)
    strict = contracts(new=False, defined_only=True)
    async with World(templates=[template(strict)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5))
        assert flow.status == "ESCALATED"
        (failure,) = [each for each in flow.history if each.kind is Kind.FAILURE]
        assert "size" in str(failure.event.data.value)
        assert "CONTRACT_VIOLATION" in str(failure.event.data.value)
        # In flows of a version that defines it, the same agent is right.
        await world.put(template(contracts(new=True, defined_only=True), version=2))
        later = await world.start("order", message(NEW, "Asked", amount=6))
        assert later.status == "COMPLETED"


@pytest.mark.parametrize("stored", [OLD, NEW], ids=["old-version", "new-version"])
async def test_a_released_proposal_keeps_what_its_version_does_not_know(stored: Contracts) -> None:
    shop = Shop(answering=NEW, ending=OLD)
    async with World(templates=[template(stored, text=TEMPLATE + GATE)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=50, note="please"), requester="kim")
        assert flow.status == "WAITING_APPROVAL"
        await world.approve(flow, voter="anna", roles=["finance"])
        assert flow.status == "COMPLETED"
        proposed, released = [each.event.data for each in flow.history if each.type == "shop.v1.Answered"]
        assert proposed == released
        assert fact(flow, "Answered", NEW).remark == "a word"  # type: ignore[attr-defined]


async def test_a_retry_gets_the_event_with_all_that_was_in_it() -> None:
    shop = Shop(answering=NEW, ending=OLD)
    shop.fails = True
    async with World(templates=[template(OLD)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5, note="please"))
        await world.advance(timedelta(seconds=5))
        assert flow.status == "COMPLETED"
        first, second = shop.seen[1:]
        assert first == second
        assert fact(flow, "Done", NEW).asked.note == "please"  # type: ignore[attr-defined]


async def test_an_undo_gets_the_event_with_all_that_was_in_it() -> None:
    shop = Shop(answering=OLD, ending=OLD)
    async with World(templates=[template(OLD)], agents=shop.agents) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5, note="please"))
        await world.compensate(flow)
        assert flow.status == "COMPENSATED"
        (undone,) = shop.undone
        again = NEW.message_class("shop.v1.Answered").FromString(undone.SerializeToString())
        assert again.asked.note == "please"  # type: ignore[attr-defined]


async def test_an_old_agent_works_in_a_flow_with_messages_that_it_has_never_heard_of() -> None:
    shop = Shop(answering=OLD, ending=OLD)
    noting = Agent("noting")
    Asked, Noted = NEW.message_class("shop.v1.Asked"), NEW.message_class("shop.v1.Noted")

    @noting.on(Asked)
    def note(event: Asked) -> Noted:  # type: ignore[valid-type]
        return Noted(text="seen")

    steps = TEMPLATE + NOTING
    irreversible = steps.replace(
        "emits: [shop.v1.Done]\n    effect: NONE", "emits: [shop.v1.Done]\n    effect: IRREVERSIBLE"
    )
    assert irreversible != steps  # so that the old agent folds the flow first
    async with World(templates=[template(NEW, text=irreversible)], agents=[*shop.agents, noting]) as world:
        flow = await world.start("order", message(NEW, "Asked", amount=5))
        assert flow.status == "COMPLETED"
        assert fact(flow, "Noted", NEW).text == "seen"  # type: ignore[attr-defined]
        assert not world.quarantined


@pytest.mark.parametrize("nested", [False, True], ids=["own", "nested"])
def test_what_a_contract_does_not_know_is_shown_all_the_same(nested: bool) -> None:
    """Who approves a message has to see that there is more in it than its contract says."""
    asked = message(NEW, "Asked", amount=5, note="please")
    sent = message(NEW, "Answered", asked=asked) if nested else asked
    name = "Answered" if nested else "Asked"
    shown = OLD.to_json(OLD.message_class(f"shop.v1.{name}").FromString(sent.SerializeToString()))
    inner = shown["asked"] if nested else shown
    assert inner == {"amount": "5", "@unknown": "EgZwbGVhc2U="}


def test_what_a_contract_knows_is_shown_as_ever() -> None:
    small = message(OLD, "Answered", asked=message(OLD, "Asked", amount=5), size=1)
    assert OLD.to_json(small) == {"asked": {"amount": "5"}, "size": "SIZE_SMALL"}
    assert OLD.to_json(message(OLD, "Answered", size=2)) == {"size": 2}  # a value without a name is its number
