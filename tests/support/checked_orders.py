"""A template without findings, and its contracts: tests of the type-check plant faults in it."""

from __future__ import annotations

from handrail.mesh.contracts import Contracts
from handrail.mesh.template import load_yaml
from handrail.v1 import template_pb2 as pb
from handrail.validate import validate_pb2
from tests.support.shop import set_of, shop_file

SOUND = """\
name: order
version: 1
starts_with: [shop.v1.Asked]
started_by: [desk]
completes_with: [shop.v1.Told]
deadline: 3600s
steps:
  - name: split
    agent: planner
    after: [shop.v1.Asked]
    emits: [shop.v1.Planned]
    effect: NONE
    timeout: 5s
  - name: pick
    agent: picker
    after: [shop.v1.Planned, shop.v1.Missed]
    emits: [shop.v1.Picked, shop.v1.Missed]
    effect: UNDOABLE
    timeout: 5s
    undo: {timeout: 5s, emits: [shop.v1.PutBack]}
  - name: price
    agent: pricer
    after: [shop.v1.Planned]
    emits: [shop.v1.Priced]
    effect: NONE
    timeout: 5s
  - name: pack
    agent: packer
    after_all:
      - {type: shop.v1.Picked, count: "latest['shop.v1.Planned'].parts"}
      - {type: shop.v1.Priced}
    emits: [shop.v1.Packed]
    effect: NONE
    timeout: 5s
  - name: ship
    agent: shipper
    after: [shop.v1.Packed]
    emits: [shop.v1.Shipped]
    effect: IRREVERSIBLE
    timeout: 5s
  - name: tell
    agent: teller
    after: [shop.v1.Shipped, handrail.v1.ApprovalRefused]
    emits: [shop.v1.Told]
    effect: IRREVERSIBLE
    timeout: 5s
  - name: audit
    agent: auditor
    after: [shop.v1.Shipped]
    effect: NONE
    timeout: 5s
gates:
  - name: dear
    on: shop.v1.Packed
    when: event.price > 100
    approvers: {roles: [boss], not_the_requester: true, requester_field: by.name}
    expires_after: 60s
rules:
  - name: misses
    on: [shop.v1.Missed]
    when: flow.counts['shop.v1.Missed'] > 3
    then: ESCALATE
"""

MESSAGES = {
    "Asked": {"key": "string"},
    "Planned": {"parts": "uint32"},
    "Picked": {"part": "string"},
    "Missed": {"part": "string"},
    "Priced": {"price": "int64"},
    "Packed": {"price": "int64", "by": "shop.v1.Person", "names": "repeated string", "weight": "double"},
    "Shipped": {"parcel": "string"},
    "Told": {},
    "PutBack": {},
    "Person": {"name": "string", "age": "int64"},
    "Stray": {},
    "Counted": {"parts": "uint32"},
}


def bounded(most: int | None = 100) -> Contracts:
    """The contracts of SOUND, with a rule that limits the number of parts."""
    file = shop_file(MESSAGES, imports=("buf/validate/validate.proto",))
    planned = next(message for message in file.message_type if message.name == "Planned")
    if most is not None:
        planned.field[0].options.Extensions[validate_pb2.field].uint32.lte = most
    return Contracts.from_descriptor_set(set_of(file))


CONTRACTS = bounded()


def edited(*edits: tuple[str, str]) -> pb.FlowTemplate:
    """The sound template with these texts replaced, each once."""
    text = SOUND
    for wrong, right in edits:
        assert wrong in text, wrong
        text = text.replace(wrong, right, 1)
    return load_yaml(text)
