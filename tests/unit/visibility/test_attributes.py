"""A flow is found by the fields that its template declares."""

from google.protobuf.message import Message

from handrail.mesh.contracts.field_path import value_at
from handrail.mesh.template import Template
from handrail.visibility.index.attributes import Attribute, attributes
from payments.v1.payments_pb2 import Risk
from tests.support.flows import enrichment, received, template
from tests.support.simulation import Simulation


def searched(*paths: str) -> Template:
    made = template()
    proto = type(made.proto).FromString(made.proto.SerializeToString())
    proto.search.extend(paths)
    return Template.compile(proto, made.contracts)


def begun(*paths: str, first: Message | None = None) -> Simulation:
    simulation = Simulation(searched(*paths))
    simulation.say(simulation.start(first or received(), agent="detection"))
    return simulation


def test_texts_numbers_and_fields_of_inner_messages_are_attributes() -> None:
    simulation = begun("chargeback_id", "amount.units", "amount.currency_code")
    assert attributes(simulation.flow) == [
        Attribute("amount.currency_code", "EUR", None),
        Attribute("amount.units", "250", 250.0),
        Attribute("chargeback_id", "cb-1", None),
    ]


def test_the_first_event_with_a_value_counts() -> None:
    simulation = begun("account_id", "risk", "email")
    assert [each.name for each in attributes(simulation.flow)] == ["account_id"]
    run = next(iter(simulation.flow.runs.values()))
    other = enrichment(Risk.RISK_HIGH)
    other.account_id = "another"
    simulation.say(simulation.outcome(run, other))
    assert attributes(simulation.flow) == [
        Attribute("account_id", "acc-1", None),
        Attribute("email", "kim@example.com", None),
        Attribute("risk", "RISK_HIGH", None),
    ]


def test_without_declared_fields_there_are_none() -> None:
    assert attributes(begun().flow) == []


def test_a_message_without_the_inner_one_has_no_value() -> None:
    first = received()
    first.ClearField("amount")
    assert value_at(first, "amount.units") is None
    assert value_at(first, "account_id") == "acc-1"
