"""The flow type of the stories: an order, and an offer that is joined from priced parts. No generated code anywhere."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.protobuf.message import Message

from buf.validate import validate_pb2
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template, load_yaml
from tests.support.shop import Fields, set_of, shop_file

TEMPLATES = Path(__file__).parents[1] / "scenarios" / "templates"

PACKAGE = "shop.v1"

_MESSAGES: dict[str, Fields] = {
    "OrderPlaced": {"buyer": "string", "units": "int64", "risk": "int64"},
    "StockReserved": {"units": "int64"},
    "StockReleased": {},
    "DiscountGranted": {"percent": "int64", "asked_by": "string"},
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
    """The messages of shop.v1. Contract: nobody orders fewer than no units."""
    rules = FileDescriptorProto.FromString(validate_pb2.DESCRIPTOR.serialized_pb)
    shop = shop_file(_MESSAGES, imports=(rules.name,))
    for message in shop.message_type:
        for field in message.field:
            if field.name == "units":
                field.options.Extensions[validate_pb2.field].int64.gte = 0
    return Contracts.from_descriptor_set(set_of(rules, shop))


def make(name: str, /, **fields: Any) -> Message:
    """A message of shop.v1, or of handrail.v1 where the shop has none of that name."""
    full_name = f"{PACKAGE}.{name}" if name in _MESSAGES else f"handrail.v1.{name}"
    return contracts().message_class(full_name)(**fields)


def load(name: str, **changes: Any) -> Template:
    """A template of the stories, with changes: `pay__timeout="5s"` is the timeout of the step, gate or rule `pay`."""
    return _load(name, tuple(sorted(changes.items())))


@cache
def _load(name: str, changes: tuple[tuple[str, Any], ...]) -> Template:
    spec = yaml.load((TEMPLATES / f"{name}.yaml").read_text(), Loader=yaml.BaseLoader)
    parts = [*spec.get("steps", ()), *spec.get("gates", ()), *spec.get("rules", ())]
    places = {"flow": spec} | {part["name"]: part for part in parts}
    for path, value in changes:
        place, *keys, last = path.split("__")
        target = places[place]
        for key in keys:
            target = target.setdefault(key, {})
        target[last] = value
    return Template.compile(load_yaml(yaml.safe_dump(spec)), contracts())
