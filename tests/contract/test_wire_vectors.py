"""`docs/wire.md` says what the code does: its ids, subjects and filters."""

import inspect
import json
import re
from collections.abc import Callable
from hashlib import sha256
from typing import TypeAlias

import pytest
from google.protobuf.json_format import ParseDict

from handrail.mesh.contracts import Contracts
from handrail.mesh.streams.durables import DECIDE, TRACK, coordinator_filters
from handrail.mesh.template.compilation import rule_spec
from handrail.mesh.template.terms import Terms
from handrail.mesh.wire import ids, subjects
from handrail.v1.event_pb2 import Event
from handrail.v1.template_pb2 import Rule
from payments.v1.payments_pb2 import ChargebackEnriched
from tests.contract.source import ROOT

WIRE = ROOT / "docs" / "wire.md"

Field: TypeAlias = "str | dict[str, str]"

# From the fields that are hashed to a call of the function that hashes them.
CALLS: dict[str, Callable[[list[str]], str]] = {
    "flow_id_from_key": lambda f: ids.flow_id_from_key(f[1], f[2]),
    "flow_id_from_request": lambda f: ids.flow_id_from_request(f[1], f[2], f[3]),
    "key_hash": lambda f: ids.key_hash(f[1], f[2]),
    "start_id": lambda f: ids.start_id(f[1]),
    "outcome_id": lambda f: ids.outcome_id(f[1], f[2], f[3], int(f[4]), int(f[5])),
    "undone_id": lambda f: ids.undone_id(f[1], f[2]),
    "attempt_id": lambda f: ids.attempt_id(f[0], f[1], f[2], f[3], int(f[4]), int(f[5])),
    "progress_id": lambda f: ids.progress_id(f[1], f[2], f[3], int(f[4]), int(f[5]), int(f[6])),
    "divergence_id": lambda f: ids.divergence_id(f[1], f[2], f[3]),
    "decision_id": lambda f: ids.decision_id(f[1], f[2], f[3], int(f[4])),
    "requested_id": lambda f: ids.requested_id(f[1], f[2], f[3], int(f[4])),
    "delegation_id": lambda f: ids.delegation_id(f[1], f[2]),
    "escalation_id": lambda f: ids.escalation_id(f[1], f[2], f[3]),
    "join_root": lambda f: ids.join_root(f[1:]),
    "idempotency_key": lambda f: ids.idempotency_key(f[1], f[2], f[3], int(f[4])),
    "undo_key": lambda f: ids.undo_key(f[1], f[2]),
    "quarantine_id": lambda f: ids.quarantine_id(f[1], bytes.fromhex(f[2])),
    "approval_digest": lambda f: ids.approval_digest(
        flow_id=f[1], event_id=f[2], gates=f[3].split(",")[::-1], message_type=f[4], data=bytes.fromhex(f[5])
    ),
    "act_digest": lambda f: ids.act_digest(about=f[1], message_type=f[2], data=bytes.fromhex(f[3])),
    "template_act_id": lambda f: ids.template_act_id(f[1], int(f[2])),
}

# Not of length-prefixed fields: a UUIDv7, and a plain SHA-256.
OTHERWISE = {"new_flow_id", "content_digest"}


def block(language: str) -> str:
    """The one fenced block of this language."""
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", WIRE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(found) == 1, f"{WIRE.name} has {len(found)} blocks of {language}"
    return found[0]


def vectors() -> list[tuple[str, list[Field], str]]:
    return [(each["function"], each["fields"], each["result"]) for each in json.loads(block("vectors"))]


def recomputed(fields: list[Field]) -> bytes:
    """As the page says, without the product's code."""
    data = [field.encode() if isinstance(field, str) else bytes.fromhex(field["hex"]) for field in fields]
    return sha256(b"".join(len(each).to_bytes(4, "big") + each for each in data)).digest()


@pytest.mark.parametrize("function,fields,result", vectors(), ids=lambda value: value if isinstance(value, str) else "")
def test_a_vector_holds_p3(function: str, fields: list[Field], result: str) -> None:
    digest = recomputed(fields).hex()
    assert result == (digest if function.endswith("_digest") else digest[:32])
    given = [field if isinstance(field, str) else field["hex"] for field in fields]
    assert CALLS[function](given) == result


def test_every_id_has_a_vector() -> None:
    functions = {
        name
        for name, function in vars(ids).items()
        if inspect.isfunction(function) and function.__module__ == ids.__name__ and not name.startswith("_")
    }
    assert {function for function, _, _ in vectors()} == functions - OTHERWISE


def test_the_digest_of_a_rule_is_that_of_its_serialized_fields() -> None:
    contracts = Contracts.from_messages([ChargebackEnriched])
    rule = ParseDict(json.loads(block("rule")), Rule())
    digest = rule_spec(rule, Terms(contracts=contracts, facts=frozenset(rule.on), starts=frozenset())).digest
    assert f"The digest of this rule is {digest}:" in WIRE.read_text()


def test_every_subject_on_the_page_parses() -> None:
    lines = block("subjects").split()
    assert [subjects.parse(line).subject for line in lines] == lines


def test_the_tables_name_every_kind_and_field() -> None:
    rows = re.findall(r"^\| (`.*?) \|", WIRE.read_text(), re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert {kind.value for kind in subjects.Kind} <= named
    assert {field.name for field in Event.DESCRIPTOR.fields} <= named


def test_the_coordinators_durables_deliver_the_kinds_that_the_page_names() -> None:
    whole = {durable: {f.split(".")[3] for f in filters} for durable, filters in coordinator_filters().items()}
    assert whole[TRACK] == {"event"}
    assert whole[DECIDE] == {"proposal", "failure", "undone", "divergence", "released", "progress", "decision"}
