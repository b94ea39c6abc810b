"""Contracts: the messages that a flow type speaks, learned from stored descriptors.

The coordinator knows no domain's generated code. It decodes, checks and shows messages by the descriptors that were
stored with the template, in a pool of their own: two versions of one contract live side by side in one process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import cached_property

import protovalidate
from google.protobuf.any_pb2 import Any
from google.protobuf.descriptor import Descriptor, EnumDescriptor
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from handrail.mesh.contracts import descriptors, payload_json
from handrail.mesh.contracts.descriptors import descriptor_set_for
from handrail.mesh.errors import ContractViolation, FieldViolation, HandrailError
from handrail.mesh.wire.envelope import pack, type_of
from handrail.v1.error_reason_pb2 import ErrorReason

__all__ = ["Contracts", "descriptor_set_for", "pack"]


class Contracts:
    """The message types of one descriptor set, Handrail's own, and Google's well-known types.

    Handrail's own messages and the well-known types are always the generated classes of this process, so that
    `isinstance` holds for them; every other class belongs to this object alone.
    """

    def __init__(self, descriptor_set: bytes, classes: Iterable[type[Message]] = ()) -> None:
        self.pool, self._files = descriptors.load(descriptor_set)
        self._classes = {message_class.DESCRIPTOR.full_name: message_class for message_class in classes}
        # One validator for each set: it remembers compiled rules, and another version's are not these.
        self._validator = protovalidate.Validator()

    @classmethod
    def from_descriptor_set(cls, descriptor_set: bytes) -> Contracts:
        """Learn the messages of a serialized `google.protobuf.FileDescriptorSet` with imports.

        Raises `HandrailError`: MALFORMED for a set that is none, is incomplete or contradicts itself; TOO_LARGE beyond
        900,000 bytes. Empty bytes give Handrail's own messages and the well-known types alone.
        """
        return cls(descriptor_set)

    @classmethod
    def from_messages(cls, classes: Iterable[type[Message]]) -> Contracts:
        """The contracts of these generated classes; `decode` gives instances of these very classes."""
        classes = tuple(classes)
        return cls(descriptor_set_for(classes), classes)

    def knows(self, full_name: str) -> bool:
        """Whether there is a message type of this name."""
        try:
            self.message_class(full_name)
        except HandrailError:
            return False
        return True

    @cached_property
    def message_names(self) -> frozenset[str]:
        """The full names of the top-level messages of the descriptor set, for hints at what a name may have meant."""
        return frozenset(message.full_name for file in self._files for message in file.message_types_by_name.values())

    def message_class(self, full_name: str) -> type[Message]:
        """The class of a message type; UNKNOWN_MESSAGE_TYPE where the contracts have none of this name."""
        known = self._classes.get(full_name)
        if known is None:
            found = self._descriptor(full_name)
            if found.file.name in descriptors.KNOWN:
                found = Default().FindMessageTypeByName(full_name)
            known = self._classes[full_name] = GetMessageClass(found)
        return known

    def decode(self, data: Any) -> Message:
        """The message in an `Any`.

        Raises `HandrailError`: UNKNOWN_MESSAGE_TYPE, MALFORMED where the bytes are not of that type, or
        CONTRACT_VIOLATION where it is nested deeper than `payload_json.MAX_DEPTH`.
        """
        message = self._open(data)
        if payload_json.depth(message, self._open) > payload_json.MAX_DEPTH:
            text = f"is nested more than {payload_json.MAX_DEPTH} deep"
            raise ContractViolation(message.DESCRIPTOR.full_name, [FieldViolation("", "handrail.max_depth", text)])
        return message

    def _open(self, data: Any) -> Message:
        full_name = type_of(data)
        try:
            return self.message_class(full_name).FromString(data.value)
        except DecodeError as error:
            raise HandrailError(
                ErrorReason.ERROR_REASON_MALFORMED,
                f"these {len(data.value)} bytes are no {full_name}: {error}",
                type=full_name,
            ) from error

    def validate(self, message: Message) -> None:
        """Check a message against the rules in its contract; `ContractViolation` names every field and rule it breaks.

        Rules that can't be applied (a fault of the contract, not of the message) are an error too: CONTRACT_VIOLATION.
        """
        violations = self.violations(message)
        if violations:
            raise ContractViolation(message.DESCRIPTOR.full_name, violations)

    def violations(self, message: Message) -> tuple[FieldViolation, ...]:
        """The rules of its contract that a message breaks; empty where it keeps them all."""
        try:
            found = self._validator.collect_violations(message)
        except Exception as error:  # its own two errors, and what a damaged contract makes it raise: fail closed
            full_name = message.DESCRIPTOR.full_name
            raise HandrailError(
                ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
                f"the rules in the contract of {full_name} can't be applied: {error}; correct the contract",
                type=full_name,
            ) from error
        return tuple(_field_violation(violation) for violation in found)

    def to_json(self, message: Message) -> dict[str, payload_json.Json]:
        """A message, or the message in an `Any`, in the JSON form of proto3 (64-bit integers are strings).

        An `Any` has its type under `@type`. One whose type is unknown, or whose bytes are not of that type, is shown
        with its bytes in base64 under `value`: nothing is hidden.
        """
        return payload_json.render(message, self.decode)

    @cached_property
    def descriptor_set(self) -> bytes:
        """Every file of these contracts as a serialized `FileDescriptorSet` in canonical form, imports first."""
        return descriptors.canonical(self._files)

    def subset(self, full_names: Iterable[str]) -> bytes:
        """The descriptor set with just the files, and their imports, that define these message types."""
        return descriptors.canonical({self._descriptor(name).file for name in full_names})

    def fingerprint(self, full_names: Iterable[str]) -> str:
        """SHA-256 over the definitions of these message types and of all they refer to, in hex."""
        return descriptors.fingerprint(self._descriptor(name) for name in full_names)

    def definitions(self, full_names: Iterable[str]) -> dict[str, Descriptor | EnumDescriptor]:
        """The definitions of these message types and of all they refer to, by full name.

        Without those of Handrail itself, of Google's well-known types and of the validator's rules.
        """
        found = descriptors.reachable(self._descriptor(name) for name in full_names)
        return {each.full_name: each for each in found if each.file.name not in descriptors.KNOWN}

    def _descriptor(self, full_name: str) -> Descriptor:
        try:
            found = self.pool.FindMessageTypeByName(full_name)
        except KeyError:
            raise HandrailError(
                ErrorReason.ERROR_REASON_UNKNOWN_MESSAGE_TYPE,
                f'there is no message type "{full_name}" in the contracts',
                type=full_name,
            ) from None
        return found


def _field_violation(violation: protovalidate.Violation) -> FieldViolation:
    """The validator speaks in messages of another protobuf runtime; ours are plain values."""
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{json.dumps(element.subscript.value, ensure_ascii=False)}]"
    return FieldViolation(field=path, rule=proto.rule_id, text=proto.message)
