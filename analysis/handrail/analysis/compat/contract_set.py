"""The definitions in a project's contracts: the file of each, and which refer to which. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Generic, TypeVar

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

from handrail.mesh.contracts import Contracts, descriptors

THIRD_PARTY = ("google/", "buf/validate/")
"""Folders of third-party files that a project's contracts import."""

Definition = TypeVar("Definition", DescriptorProto, EnumDescriptorProto, ServiceDescriptorProto)


@dataclass(frozen=True, slots=True)
class Defined(Generic[Definition]):
    """A definition and the file it is in."""

    proto: Definition
    file: FileDescriptorProto


@dataclass(frozen=True)
class ContractSet:
    """A descriptor set, indexed by full name. `files` are the project's own files, by path."""

    proto: FileDescriptorSet
    files: Mapping[str, FileDescriptorProto]
    messages: Mapping[str, Defined[DescriptorProto]] = field(default_factory=dict)
    enums: Mapping[str, Defined[EnumDescriptorProto]] = field(default_factory=dict)
    services: Mapping[str, Defined[ServiceDescriptorProto]] = field(default_factory=dict)

    @classmethod
    def parse(cls, descriptor_set: bytes) -> ContractSet:
        """Parses a serialized `FileDescriptorSet` with imports, or a buf image. Raises TOO_LARGE or MALFORMED."""
        files = descriptors.parse(descriptor_set)
        descriptors.check_links(files)
        return cls.of(FileDescriptorSet(file=files.values()))

    @classmethod
    def of(cls, proto: FileDescriptorSet) -> ContractSet:
        """The contracts of a descriptor set."""
        messages: dict[str, Defined[DescriptorProto]] = {}
        enums: dict[str, Defined[EnumDescriptorProto]] = {}
        services: dict[str, Defined[ServiceDescriptorProto]] = {}
        for file in proto.file:
            for name, message in _messages(file.package, file.message_type):
                messages[name] = Defined(message, file)
                enums.update((_in(name, each.name), Defined(each, file)) for each in message.enum_type)
            enums.update((_in(file.package, each.name), Defined(each, file)) for each in file.enum_type)
            services.update((_in(file.package, each.name), Defined(each, file)) for each in file.service)
        owned = {file.name: file for file in proto.file if not file.name.startswith(THIRD_PARTY)}
        return cls(proto, owned, messages, enums, services)

    def only(self, files: Collection[str]) -> ContractSet:
        """A copy in which the project owns only these files."""
        return replace(self, files={name: file for name, file in self.files.items() if name in files})

    @property
    def packages(self) -> frozenset[str]:
        """The packages of the project's files."""
        return frozenset(file.package for file in self.files.values())

    def files_of(self, packages: Collection[str]) -> frozenset[str]:
        """The project's files that are in one of these packages."""
        return frozenset(name for name, file in self.files.items() if file.package in packages)

    @cached_property
    def contracts(self) -> Contracts:
        """The contracts, ready to decode messages and compile expressions. Raises TOO_LARGE or MALFORMED."""
        return Contracts.from_descriptor_set(self.proto.SerializeToString())

    @cached_property
    def _users(self) -> Mapping[str, frozenset[str]]:
        """Maps a full name to the messages that have a field of this type."""
        users: dict[str, set[str]] = {}
        for name, message in self.messages.items():
            for each in message.proto.field:
                if each.type_name:
                    users.setdefault(each.type_name.removeprefix("."), set()).add(name)
        return {name: frozenset(using) for name, using in users.items()}

    def containing(self, full_name: str) -> frozenset[str]:
        """The messages that contain this message or enum at any depth; a message contains itself."""
        found: set[str] = set()
        waiting = [full_name]
        while waiting:
            name = waiting.pop()
            if name not in found:
                found.add(name)
                waiting.extend(self._users.get(name, ()))
        return frozenset(found & self.messages.keys())

    def calls_with(self, messages: Iterable[str]) -> tuple[str, ...]:
        """The RPCs that take or return one of these messages."""
        wanted = set(messages)
        return tuple(
            f"{name}.{method.name}"
            for name, service in sorted(self.services.items())
            if service.file.name in self.files
            for method in service.proto.method
            if wanted & {method.input_type.removeprefix("."), method.output_type.removeprefix(".")}
        )

    @cached_property
    def requests(self) -> frozenset[str]:
        """The requests of the project's RPCs, and all messages contained in them."""
        found: set[str] = set()
        waiting = [
            method.input_type
            for service in self.services.values()
            if service.file.name in self.files
            for method in service.proto.method
        ]
        while waiting:
            name = waiting.pop().removeprefix(".")
            if name in self.messages and name not in found:
                found.add(name)
                waiting.extend(each.type_name for each in self.messages[name].proto.field if each.type_name)
        return frozenset(found)

    def without(self, definition: str, member: str) -> ContractSet:
        """A copy in which a field or an enum value can't be named. What still compiles does not read it."""
        copy = FileDescriptorSet()
        copy.CopyFrom(self.proto)
        changed = ContractSet.of(copy)
        found = changed.messages.get(definition) or changed.enums.get(definition)
        if found is not None:
            members: Iterable[FieldDescriptorProto] = getattr(
                found.proto, "field" if isinstance(found.proto, DescriptorProto) else "value"
            )
            for each in members:
                if each.name == member:
                    each.name = f"{member}__gone"
                    if isinstance(each, FieldDescriptorProto):
                        each.ClearField("json_name")
        return changed


def is_real_oneof(message: DescriptorProto, index: int) -> bool:
    """Whether a oneof is in the source, rather than generated by the compiler for an `optional` field."""
    return not any(
        each.proto3_optional for each in message.field if each.HasField("oneof_index") and each.oneof_index == index
    )


def _messages(scope: str, messages: Iterable[DescriptorProto]) -> Iterator[tuple[str, DescriptorProto]]:
    for message in messages:
        name = _in(scope, message.name)
        yield name, message
        yield from _messages(name, message.nested_type)


def _in(scope: str, name: str) -> str:
    return f"{scope}.{name}" if scope else name
