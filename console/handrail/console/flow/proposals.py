"""Proposals that wait for people, with the fields of what was proposed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handrail.console.flow.money import amount
from handrail.mesh.printable import json_text, shortened
from handrail.v1 import flow_service_pb2 as pb

_LONGEST = 500


@dataclass(frozen=True, slots=True)
class Proposal:
    """An approval that waits, and the fields of its message as text."""

    approval: pb.Approval
    fields: tuple[tuple[str, str], ...]


def fields(payload: Mapping[str, object]) -> tuple[tuple[str, str], ...]:
    """Each field of a payload: amounts with their currency, whatever is not a text as JSON."""
    return tuple((name, _text(value)) for name, value in payload.items() if name != "@type")


def _text(value: object) -> str:
    return shortened(amount(value) or (value if isinstance(value, str) else json_text(value)), _LONGEST)
