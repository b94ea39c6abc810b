"""A change of a contract: what changed where, whom it can hurt, and the compatible way to the same end."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Level(IntEnum):
    """How much a change can hurt; a higher one hurts more."""

    COMPATIBLE = 0
    """Old and new understand each other."""
    TIGHTENED = 1
    """A validation rule is new or narrower: messages that were right are refused."""
    BREAKING_SOURCE = 2
    """The bytes mean the same; JSON, generated code or CEL expressions do not."""
    BREAKING_REQUEST = 3
    """A request of an RPC that was right is refused. Who calls is not known, so somebody does."""
    BREAKING_WIRE = 4
    """Old and new read different things out of the same bytes, or nothing."""

    @property
    def is_breaking(self) -> bool:
        """Whether it is more than a tightened rule."""
        return self >= Level.BREAKING_SOURCE


_KEEP = "keep it, mark it deprecated, and stop writing it"
_NEW_FIELD = (
    "keep the field as it is and add one of another name and number; write both until nothing reads the old one"
)
_NEW_MESSAGE = (
    "keep the message as it is; add a new one (…V2), let a new template version emit and wait for it, and remove the "
    "old one when no flow of an older version runs"
)
_OLD_RULE = (
    "keep the rule as it is and check in the handler; or give the narrower message a name of its own, in a new "
    "template version"
)

_OLD_REQUEST = "keep the rule as it is, or add an RPC whose request has the narrower rule"

REMEDIES = {
    "FILE_REMOVED": "keep the file: generated code imports it",
    "FILE_CHANGED": "keep the file's options: generated code depends on them",
    "MESSAGE_ADDED": "",
    "MESSAGE_REMOVED": _NEW_MESSAGE,
    "MESSAGE_MOVED": "leave it in its file: generated code imports it from there",
    "MESSAGE_OPTION": "keep the message's options",
    "FIELD_ADDED": "",
    "FIELD_ADDED_REQUIRED": "let the rule allow that the field is missing (`optional`, or no rule)",
    "FIELD_REMOVED": _KEEP,
    "FIELD_RENAMED": _NEW_FIELD,
    "FIELD_RENUMBERED": "give it back its number: bytes know fields by number alone",
    "FIELD_JSON_NAME": 'keep the JSON name, with [json_name = "…"]',
    "FIELD_TYPE": _NEW_FIELD,
    "FIELD_CARDINALITY": _NEW_FIELD,
    "FIELD_ONEOF": _NEW_FIELD,
    "FIELD_DEFAULT": "keep the default: old readers have it built in",
    "FIELD_OPTION": "keep the field's options",
    "ONEOF_REMOVED": "keep the oneof: generated code has it",
    "RESERVED_REMOVED": "keep it reserved: messages of before may still have what was there",
    "EXTENSION_REMOVED": "keep the extension range",
    "ENUM_ADDED": "",
    "ENUM_REMOVED": "keep the enum while a message of a running flow has it",
    "ENUM_MOVED": "leave it in its file: generated code imports it from there",
    "ENUM_OPTION": "keep the enum's options",
    "ENUM_VALUE_ADDED": "",
    "ENUM_VALUE_REMOVED": _KEEP,
    "ENUM_VALUE_RENUMBERED": "give it back its number: bytes know values by number alone",
    "ENUM_VALUE_RENAMED": "keep the value and add one of another name and number",
    "SERVICE_ADDED": "",
    "SERVICE_REMOVED": "keep the service until no client calls it",
    "SERVICE_MOVED": "leave it in its file: generated code imports it from there",
    "RPC_ADDED": "",
    "RPC_REMOVED": "keep the RPC until no client calls it",
    "RPC_TYPE": "keep the RPC as it is and add another",
    "RPC_STREAMING": "keep the RPC as it is and add another",
    "RPC_OPTION": "keep the RPC's idempotency level: clients repeat calls by it",
    "RULE_ADDED": _OLD_RULE,
    "RULE_TIGHTENED": _OLD_RULE,
    "RULE_CHANGED": _OLD_RULE,
    "RULE_LOOSENED": "",
    "RULE_REMOVED": "",
}
"""Every code of a change, with the compatible way to the same end; empty where nothing has to be done."""


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """One change. `definition` is the full name of the message, enum or service that changed, or the path of the file;
    `member` the field, value or RPC in it, as it was called before; empty where the whole changed."""

    definition: str
    member: str
    code: str
    level: Level
    file: str
    text: str

    @property
    def name(self) -> str:
        """What changed, as people call it: payments.v1.RefundPaid.amount."""
        return f"{self.definition}.{self.member}" if self.member else self.definition

    @property
    def remedy(self) -> str:
        """The compatible way to the same end."""
        if self.level is Level.BREAKING_REQUEST and self.code.startswith("RULE_"):
            return _OLD_REQUEST
        return REMEDIES[self.code]
