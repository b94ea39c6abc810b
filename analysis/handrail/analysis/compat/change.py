"""A change of a contract: what changed and where, whom it can hurt, and a compatible way to the same goal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How much a change can hurt; a higher one hurts more."""

    COMPATIBLE = 0
    """The old and the new contract understand each other."""
    TIGHTENED = 1
    """A validation rule is new or narrower: messages that were valid are refused."""
    BREAKING_SOURCE = 2
    """The bytes mean the same, but JSON, generated code or CEL expressions break."""
    BREAKING_REQUEST = 3
    """A request of an RPC that was valid is refused. Callers are unknown, so assume that there are some."""
    BREAKING_WIRE = 4
    """The old and the new contract read the same bytes differently, or can't read them."""

    @property
    def is_breaking(self) -> bool:
        """Whether it is more than a tightened rule."""
        return self >= Level.BREAKING_SOURCE


_KEEP = "keep it, mark it deprecated, and stop writing it"
_NEW_FIELD = "keep the field and add one with another name and number; write both until nothing reads the old one"
_NEW_MESSAGE = (
    "keep the message and add a new one (…V2); let a new template version emit it and wait for it, and remove the "
    "old one when no flow of an older version is running"
)
_OLD_RULE = (
    "keep the rule and check in the handler; or give the narrower message a name of its own, in a new template version"
)

_OLD_REQUEST = "keep the rule, or add an RPC whose request has the narrower rule"

REMEDIES = {
    "FILE_REMOVED": "keep the file: generated code imports it",
    "FILE_CHANGED": "keep the file's options: generated code depends on them",
    "MESSAGE_ADDED": "",
    "MESSAGE_REMOVED": _NEW_MESSAGE,
    "MESSAGE_MOVED": "leave it in its file: generated code imports it from there",
    "MESSAGE_OPTION": "keep the message's options",
    "FIELD_ADDED": "",
    "FIELD_ADDED_REQUIRED": "let the rule accept a missing field (`optional`, or no rule)",
    "FIELD_REMOVED": _KEEP,
    "FIELD_RENAMED": _NEW_FIELD,
    "FIELD_RENUMBERED": "give it back its number: in the bytes a field is only its number",
    "FIELD_JSON_NAME": 'keep the JSON name, with [json_name = "…"]',
    "FIELD_TYPE": _NEW_FIELD,
    "FIELD_CARDINALITY": _NEW_FIELD,
    "FIELD_ONEOF": _NEW_FIELD,
    "FIELD_DEFAULT": "keep the default: old readers have it built in",
    "FIELD_OPTION": "keep the field's options",
    "ONEOF_REMOVED": "keep the oneof: generated code uses it",
    "RESERVED_REMOVED": "keep it reserved: old messages may still contain it",
    "EXTENSION_REMOVED": "keep the extension range",
    "ENUM_ADDED": "",
    "ENUM_REMOVED": "keep the enum while a message of a running flow uses it",
    "ENUM_MOVED": "leave it in its file: generated code imports it from there",
    "ENUM_OPTION": "keep the enum's options",
    "ENUM_VALUE_ADDED": "",
    "ENUM_VALUE_REMOVED": _KEEP,
    "ENUM_VALUE_RENUMBERED": "give it back its number: in the bytes a value is only its number",
    "ENUM_VALUE_RENAMED": "keep the value and add one with another name and number",
    "SERVICE_ADDED": "",
    "SERVICE_REMOVED": "keep the service until no client calls it",
    "SERVICE_MOVED": "leave it in its file: generated code imports it from there",
    "RPC_ADDED": "",
    "RPC_REMOVED": "keep the RPC until no client calls it",
    "RPC_TYPE": "keep the RPC and add another",
    "RPC_STREAMING": "keep the RPC and add another",
    "RPC_OPTION": "keep the RPC's idempotency level: clients decide by it whether to repeat a call",
    "RULE_ADDED": _OLD_RULE,
    "RULE_TIGHTENED": _OLD_RULE,
    "RULE_CHANGED": _OLD_RULE,
    "RULE_LOOSENED": "",
    "RULE_REMOVED": "",
}
"""Every code of a change, with a compatible way to the same goal; empty if nothing has to be done."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change. `definition` is the full name of the message, enum or service that changed, or the path of the file.
    `member` is the field, value or RPC in it, by its old name; empty if the definition changed as a whole."""

    definition: str
    member: str
    code: str
    level: Level
    file: str
    text: str

    @property
    def name(self) -> str:
        """The full name of what changed: payments.v1.RefundPaid.amount."""
        return f"{self.definition}.{self.member}" if self.member else self.definition

    @property
    def remedy(self) -> str:
        """A compatible way to the same goal."""
        if self.level is Level.BREAKING_REQUEST and self.code.startswith("RULE_"):
            return _OLD_REQUEST
        return REMEDIES[self.code]
