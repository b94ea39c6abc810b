"""Descriptor sets: message definitions as bytes, in canonical form.

A set may come from `buf build`, `protoc --descriptor_set_out` or Python classes. In canonical form imports come before
importers, without comments and source positions: the same contract always gives the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from typing import cast

from google.protobuf import any_pb2, duration_pb2, empty_pb2, field_mask_pb2, struct_pb2, timestamp_pb2, wrappers_pb2
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, EnumDescriptorProto, FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError, Message

from handrail.mesh.contracts import json_names
from handrail.mesh.errors import HandrailError
from handrail.v1 import decision_pb2, event_pb2, failure_pb2, template_pb2
from handrail.v1.error_reason_pb2 import ErrorReason

MAX_BYTES = 900_000
"""The largest accepted descriptor set, in bytes: a stored template must fit into one message of the broker."""

MAX_FILES, MAX_TYPES, MAX_FIELDS = 500, 5_000, 50_000
"""The most files, messages and enums (nested ones too), and fields and enum values of a descriptor set. The engine of
conditions takes about 10 microseconds for each type, whenever it learns a set."""

_KNOWN_FILES = (
    any_pb2.DESCRIPTOR,
    duration_pb2.DESCRIPTOR,
    empty_pb2.DESCRIPTOR,
    field_mask_pb2.DESCRIPTOR,
    struct_pb2.DESCRIPTOR,
    timestamp_pb2.DESCRIPTOR,
    wrappers_pb2.DESCRIPTOR,
    event_pb2.DESCRIPTOR,
    decision_pb2.DESCRIPTOR,
    failure_pb2.DESCRIPTOR,
    template_pb2.DESCRIPTOR,
)


def descriptor_set_for(classes: Iterable[type[Message]]) -> bytes:
    """The descriptor set that defines these message classes, with imports, in canonical form."""
    return canonical(cast("FileDescriptor", message_class.DESCRIPTOR.file) for message_class in classes)


def canonical(files: Iterable[FileDescriptor]) -> bytes:
    """These files and their imports as a descriptor set, imports first."""
    descriptor_set = FileDescriptorSet()
    for file in _with_imports(sorted(files, key=lambda file: file.name)):
        descriptor_set.file.append(file_proto(file))
    return descriptor_set.SerializeToString(deterministic=True)


def file_proto(file: FileDescriptor) -> FileDescriptorProto:
    """The definition of a file as a message, with all JSON names filled in: some compilers leave them out."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    json_names.fill_in(proto.message_type)
    return proto


def load(descriptor_set: bytes) -> tuple[DescriptorPool, tuple[FileDescriptor, ...]]:
    """Builds a pool with the files of a descriptor set and those in `KNOWN`. Returns it and the set's own files.

    The set's copies of files in `KNOWN` are ignored: a set can't redefine the types of Handrail or the validator.
    Raises TOO_LARGE, or MALFORMED if the set is invalid, lacks an import or is inconsistent.
    """
    pool = DescriptorPool()
    for file in KNOWN.values():
        pool.Add(file_proto(file))
    files = _imports_first(parse(descriptor_set))
    return pool, tuple(_link(pool, proto) for proto in files if proto.name not in KNOWN)


def fingerprint(types: Iterable[Descriptor]) -> str:
    """SHA-256, in hex, over the definitions of these messages and of all types they refer to.

    Unrelated messages in the same files don't count: a contract stays the same when its neighbours change. Types of
    files in `KNOWN` count by name only: they change with Handrail, not with the contract.
    """
    digest = hashlib.sha256()
    dialects: dict[str, bytes] = {}
    for definition in sorted(reachable(types), key=lambda definition: definition.full_name):
        if definition.file.name not in dialects:
            dialects[definition.file.name] = _dialect(definition.file)
        for part in (definition.full_name.encode(), _definition_bytes(definition, dialects[definition.file.name])):
            digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def parse(descriptor_set: bytes) -> dict[str, FileDescriptorProto]:
    """Parses a serialized FileDescriptorSet into files by name, without linking them. Raises TOO_LARGE or MALFORMED."""
    if len(descriptor_set) > MAX_BYTES:
        raise HandrailError(
            ErrorReason.ERROR_REASON_TOO_LARGE,
            f"the descriptor set has {len(descriptor_set):,} bytes, at most {MAX_BYTES:,} are accepted; "
            "build it with --exclude-source-info, and only for the files the template needs",
        )
    try:
        parsed = FileDescriptorSet.FromString(descriptor_set)
    except DecodeError as error:
        raise _malformed(f"it is not a google.protobuf.FileDescriptorSet ({error})") from error
    if descriptor_set and not parsed.file:
        raise _malformed("it has no files")
    _check_size(parsed)
    files: dict[str, FileDescriptorProto] = {}
    for proto in parsed.file:
        if not proto.name or not isinstance(proto.name, str):  # proto2 gives bytes for text that is not UTF-8
            raise _malformed("it has a file without a name")
        if files.setdefault(proto.name, proto) != proto:
            raise _malformed(f"it has two different files with the name {proto.name}")
    return files


def _check_size(parsed: FileDescriptorSet) -> None:
    """Raises TOO_LARGE if there is too much in a set to work with."""
    types = fields = 0
    for file in parsed.file:
        waiting = list(file.message_type)
        enums = list(file.enum_type)
        while waiting:
            message = waiting.pop()
            types, fields = types + 1, fields + len(message.field) + len(message.extension)
            waiting += message.nested_type
            enums += message.enum_type
        types, fields = types + len(enums), fields + sum(len(enum.value) for enum in enums) + len(file.extension)
    for number, most, what in (
        (len(parsed.file), MAX_FILES, "files"),
        (types, MAX_TYPES, "messages and enums"),
        (fields, MAX_FIELDS, "fields and enum values"),
    ):
        if number > most:
            raise HandrailError(
                ErrorReason.ERROR_REASON_TOO_LARGE,
                f"the descriptor set has {number:,} {what}, at most {most:,} are accepted; "
                "build it only for the files the template needs",
            )


def check_links(files: Mapping[str, FileDescriptorProto]) -> None:
    """Raises MALFORMED if files are inconsistent, each in itself or together. Unlike `load`, it uses the set's own
    copies of Handrail's files.
    """
    pool = DescriptorPool()
    for proto in _imports_first({name: file_proto(file) for name, file in KNOWN.items()} | dict(files)):
        _link(pool, proto)


def _imports_first(files: dict[str, FileDescriptorProto]) -> list[FileDescriptorProto]:
    """Sorts the files so that each comes after its imports; files in `KNOWN` may be missing from the set."""
    order: TopologicalSorter[str] = TopologicalSorter()
    for name, proto in sorted(files.items()):
        for imported in proto.dependency:
            if imported not in files and imported not in KNOWN:
                raise _malformed(
                    f"{name} imports {imported}, which is missing; build the set with imports, as buf build does"
                )
        order.add(name, *proto.dependency)
    try:
        return [files[name] for name in order.static_order() if name in files]
    except CycleError as error:
        raise _malformed(f"files import each other in a cycle: {', '.join(error.args[1])}") from error


def _link(pool: DescriptorPool, proto: FileDescriptorProto) -> FileDescriptor:
    proto.ClearField("source_code_info")
    try:
        pool.Add(proto)
        return pool.FindFileByName(proto.name)
    except (TypeError, KeyError) as error:
        raise _malformed(f"file {proto.name} is inconsistent with itself or its imports: {error}") from error


def _with_imports(files: Iterable[FileDescriptor]) -> Iterator[FileDescriptor]:
    seen: set[str] = set()

    def visit(file: FileDescriptor) -> Iterator[FileDescriptor]:
        if file.name in seen:
            return
        seen.add(file.name)
        for imported in sorted(file.dependencies, key=lambda imported: imported.name):
            yield from visit(imported)
        yield file

    for file in files:
        yield from visit(file)


def reachable(types: Iterable[Descriptor]) -> set[Descriptor | EnumDescriptor]:
    """These messages and all messages and enums they refer to; does not follow references within files in `KNOWN`."""
    found: set[Descriptor | EnumDescriptor] = set()
    waiting: list[Descriptor | EnumDescriptor] = list(types)
    while waiting:
        definition = waiting.pop()
        if definition in found:
            continue
        found.add(definition)
        if isinstance(definition, Descriptor) and definition.file.name not in KNOWN:
            for field in definition.fields:
                waiting.extend(refers for refers in (field.message_type, field.enum_type) if refers is not None)
    return found


def _dialect(file: FileDescriptor) -> bytes:
    """What the meaning of a definition depends on in its file: field presence, open or closed enums."""
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    dialect = FileDescriptorProto(syntax=proto.syntax, edition=proto.edition)
    dialect.options.features.CopyFrom(proto.options.features)
    return dialect.SerializeToString(deterministic=True)


def _definition_bytes(definition: Descriptor | EnumDescriptor, dialect: bytes) -> bytes:
    if definition.file.name in KNOWN:
        return b""
    proto: DescriptorProto | EnumDescriptorProto
    proto = DescriptorProto() if isinstance(definition, Descriptor) else EnumDescriptorProto()
    definition.CopyToProto(proto)  # type: ignore[arg-type]
    if isinstance(proto, DescriptorProto):
        json_names.fill_in([proto])
    return proto.SerializeToString(deterministic=True) + dialect


def _malformed(why: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_MALFORMED, f"the descriptor set can't be used: {why}")


KNOWN: Mapping[str, FileDescriptor] = {file.name: file for file in _with_imports(_KNOWN_FILES)}
"""The files that all contracts share, by name: Handrail's own, Google's well-known types and the validator's rules."""
