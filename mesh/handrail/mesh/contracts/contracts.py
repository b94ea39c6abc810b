"""Contracts: the message types of a flow type, built from stored descriptors.

The coordinator imports no generated code of any domain. It decodes, validates and shows messages with the descriptors
stored with the template. Each set has its own pool, so two versions of a contract can coexist in one process.
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
    """The message types of one descriptor set, plus Handrail's own and Google's well-known types.

    Handrail's own messages and the well-known types are always the generated classes of this process, so `isinstance`
    works for them. All other classes belong to this object alone.
    """

    def __init__(self, descriptor_set: bytes, classes: Iterable[type[Message]] = ()) -> None:
        self.pool, self._files = descriptors.load(descriptor_set)
        self._classes = {message_class.DESCRIPTOR.full_name: message_class for message_class in classes}
        # One validator per set: it caches compiled rules, which differ between versions.
        self._validator = protovalidate.Validator()

    @classmethod
    def from_descriptor_set(cls, descriptor_set: bytes) -> Contracts:
        """Builds contracts from a serialized `google.protobuf.FileDescriptorSet` with imports.

        Raises `HandrailError`: MALFORMED if the set is invalid, incomplete or inconsistent; TOO_LARGE beyond 900,000
        bytes. Empty bytes give only Handrail's own messages and the well-known types.
        """
        return cls(descriptor_set)

    @classmethod
    def from_messages(cls, classes: Iterable[type[Message]]) -> Contracts:
        """The contracts of these generated classes; `decode` returns instances of exactly these classes."""
        classes = tuple(classes)
        return cls(descriptor_set_for(classes), classes)

    def knows(self, full_name: str) -> bool:
        """Whether the contracts have a message type of this name."""
        try:
            self.message_class(full_name)
        except HandrailError:
            return False
        return True

    @cached_property
    def message_names(self) -> frozenset[str]:
        """The full names of the top-level messages of the descriptor set, for "did you mean" hints."""
        return frozenset(message.full_name for file in self._files for message in file.message_types_by_name.values())

    def message_class(self, full_name: str) -> type[Message]:
        """The class of a message type. Raises UNKNOWN_MESSAGE_TYPE if the contracts do not have it."""
        known = self._classes.get(full_name)
        if known is None:
            found = self._descriptor(full_name)
            if found.file.name in descriptors.KNOWN:
                found = Default().FindMessageTypeByName(full_name)
            known = self._classes[full_name] = GetMessageClass(found)
        return known

    def decode(self, data: Any) -> Message:
        """Decodes the message in an `Any`.

        Raises `HandrailError`: UNKNOWN_MESSAGE_TYPE, MALFORMED if the bytes are not of that type, or
        CONTRACT_VIOLATION if it is nested deeper than `payload_json.MAX_DEPTH`.
        """
        message = self._open(data)
        if payload_json.depth(message, self._open) > payload_json.MAX_DEPTH:
            text = f"is nested more than {payload_json.MAX_DEPTH} levels deep"
            raise ContractViolation(message.DESCRIPTOR.full_name, [FieldViolation("", "handrail.max_depth", text)])
        return message

    def _open(self, data: Any) -> Message:
        full_name = type_of(data)
        try:
            return self.message_class(full_name).FromString(data.value)
        except DecodeError as error:
            raise HandrailError(
                ErrorReason.ERROR_REASON_MALFORMED,
                f"these {len(data.value)} bytes are not a {full_name}: {error}",
                type=full_name,
            ) from error

    def validate(self, message: Message) -> None:
        """Validates a message. Raises `ContractViolation`, which names each field and the rule it breaks.

        Also raises CONTRACT_VIOLATION if the rules can't be applied, which is a fault of the contract.
        """
        violations = self.violations(message)
        if violations:
            raise ContractViolation(message.DESCRIPTOR.full_name, violations)

    def violations(self, message: Message) -> tuple[FieldViolation, ...]:
        """The contract rules that a message breaks; empty if it breaks none."""
        try:
            found = self._validator.collect_violations(message)
        except Exception as error:  # its two documented errors, and anything a damaged contract causes: fail closed
            full_name = message.DESCRIPTOR.full_name
            raise HandrailError(
                ErrorReason.ERROR_REASON_CONTRACT_VIOLATION,
                f"the rules in the contract of {full_name} can't be applied: {error}; correct the contract",
                type=full_name,
            ) from error
        return tuple(map(_field_violation, found))

    def to_json(self, message: Message) -> dict[str, payload_json.Json]:
        """Converts a message, or the message in an `Any`, to proto3 JSON (64-bit integers are strings).

        An `Any` has its type under `@type`. If the type is unknown or does not match the bytes, the bytes are shown in
        base64 under `value`: nothing is hidden.
        """
        return payload_json.render(message, self.decode)

    @cached_property
    def descriptor_set(self) -> bytes:
        """All files of these contracts as a serialized `FileDescriptorSet` in canonical form, imports first."""
        return descriptors.canonical(self._files)

    def subset(self, full_names: Iterable[str]) -> bytes:
        """The descriptor set with only the files that define these message types, and their imports."""
        return descriptors.canonical({self._descriptor(name).file for name in full_names})

    def fingerprint(self, full_names: Iterable[str]) -> str:
        """SHA-256, in hex, over the definitions of these message types and of all types they refer to."""
        return descriptors.fingerprint(self._descriptor(name) for name in full_names)

    def definitions(self, full_names: Iterable[str]) -> dict[str, Descriptor | EnumDescriptor]:
        """The definitions of these message types and of all types they refer to, by full name.

        Leaves out Handrail's own types, Google's well-known types and the validator's rules.
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
    """Converts a violation of the validator, a message of another protobuf runtime, to a plain value."""
    proto = violation.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{json.dumps(element.subscript.value, ensure_ascii=False)}]"
    return FieldViolation(field=path, rule=proto.rule_id, text=proto.message)
