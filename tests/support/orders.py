"""The flow types of the stories: an order, and an offer joined from priced parts. There is no generated code."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from handrail.mesh.contracts import Contracts
from handrail.mesh.flow import Effect, Proposal, StepRun, Void
from handrail.mesh.fold import status
from handrail.mesh.template import Template, load_yaml
from handrail.mesh.wire.envelope import Entry, Recorded
from handrail.v1.decision_pb2 import FlowStatus
from handrail.validate import validate_pb2
from tests.support.shop import Fields, set_of, shop_file
from tests.support.simulation import Simulation

TEMPLATES = Path(__file__).parents[1] / "scenarios" / "templates"

PACKAGE = "shop.v1"

_MESSAGES: dict[str, Fields] = {
    "OrderPlaced": {"buyer": "string", "units": "int64", "risk": "int64"},
    "StockReserved": {"units": "int64"},
    "StockReleased": {},
    "DiscountGranted": {"percent": "int64", "asked_by": "string", "share": "double"},
    "PaymentTaken": {"amount": "int64"},
    "PaymentReturned": {},
    "ParcelSent": {},
    "OrderRefused": {},
    "PartFound": {"name": "string"},
    "PartsListed": {"parts": "int64"},
    "PartPriced": {"price": "int64"},
    "OfferMade": {"total": "int64"},
}


@cache
def contracts() -> Contracts:
    """The messages of shop.v1. Their contract refuses orders of fewer than 0 units."""
    rules = FileDescriptorProto.FromString(validate_pb2.DESCRIPTOR.serialized_pb)
    shop = shop_file(_MESSAGES, imports=(rules.name,))
    for message in shop.message_type:
        for field in message.field:
            if field.name == "units":
                field.options.Extensions[validate_pb2.field].int64.gte = 0
    return Contracts.from_descriptor_set(set_of(rules, shop))


def make(name: str, /, **fields: Any) -> Message:
    """A message of shop.v1, or of handrail.v1 if shop.v1 has no message of that name."""
    full_name = f"{PACKAGE}.{name}" if name in _MESSAGES else f"handrail.v1.{name}"
    return contracts().message_class(full_name)(**fields)


def load(name: str, **changes: Any) -> Template:
    """A template of the stories, with changes: `pay__timeout="5s"` sets the timeout of the step, gate or rule `pay`."""
    spec = yaml.load((TEMPLATES / f"{name}.yaml").read_text(), Loader=yaml.BaseLoader)
    parts = [*spec.get("steps", ()), *spec.get("gates", ()), *spec.get("rules", ())]
    places = {"flow": spec} | {part["name"]: part for part in parts}
    for path, value in changes.items():
        place, *keys, last = path.split("__")
        target = places[place]
        for key in keys:
            target = target.setdefault(key, {})
        target[last] = value
    return _compiled(json.dumps(spec))


@cache
def _compiled(text: str) -> Template:
    return Template.compile(load_yaml(text), contracts())


def begun(name: str = "order", *, by: str = "kim", units: int = 2, risk: int = 0, **changes: Any) -> Simulation:
    """A started flow of this template, with a running coordinator."""
    simulation = Simulation(load(name, **changes))
    placed = make("OrderPlaced", buyer=by, units=units, risk=risk)
    simulation.say(simulation.start(placed, requester=by))
    return simulation


def reserved(**changes: Any) -> Simulation:
    """An order with reserved goods: the discount comes next."""
    simulation = begun(**changes)
    emit(simulation, "reserve", "StockReserved", units=2)
    return simulation


def granted(percent: int = 5, **changes: Any) -> Simulation:
    """An order with a proposed discount: up to 10 percent it is released at once, and the payment comes next."""
    simulation = reserved(**changes)
    emit(simulation, "discount", "DiscountGranted", percent=percent, asked_by="kim")
    return simulation


def paid(**changes: Any) -> Simulation:
    """A paid order: the parcel comes next."""
    simulation = granted(**changes)
    emit(simulation, "pay", "PaymentTaken", amount=95)
    return simulation


def sent(**changes: Any) -> Simulation:
    """A complete order."""
    simulation = paid(**changes)
    emit(simulation, "send", "ParcelSent")
    return simulation


def run_of(simulation: Simulation, step: str) -> StepRun:
    """The newest run of a step."""
    return [run for run in simulation.flow.runs.values() if run.step.name == step][-1]


def effect_of(simulation: Simulation, name: str) -> Effect:
    """The newest effect that a message of this name reported."""
    return [e for e in simulation.flow.effects.values() if e.recorded.type == f"{PACKAGE}.{name}"][-1]


def proposal_of(simulation: Simulation) -> Proposal:
    """The newest proposal."""
    return list(simulation.flow.proposals.values())[-1]


def emit(simulation: Simulation, step: str, name: str, /, **fields: Any) -> Recorded:
    """Stores the answer of a step's agent."""
    return simulation.say(simulation.outcome(run_of(simulation, step), make(name, **fields)))


def void_of(simulation: Simulation, entry: Entry | Recorded) -> Void | None:
    """Stores a message. Returns why it does not count, or None if it counts."""
    recorded = simulation.say(entry) if isinstance(entry, Entry) else entry
    return simulation.flow.void.get(recorded.sequence)


def types(simulation: Simulation) -> list[str]:
    """The types of the messages in the stream, without packages."""
    return [recorded.type.rpartition(".")[2] for recorded in simulation.history]


def stands(simulation: Simulation) -> str:
    """The flow's status, without its prefix."""
    return FlowStatus.Name(status(simulation.flow)).removeprefix("FLOW_STATUS_")
