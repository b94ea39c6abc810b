"""Random changes of a contract: what an engineer might do to a proto, for better or worse."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import TypeVar

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    MethodOptions,
)

from handrail.validate import validate_pb2

Item = TypeVar("Item")
Mutation = Callable[[FileDescriptorProto, Random], str]
"""Changes the file. Returns a description, or nothing if the file has no place for the change."""

_SCALARS = (
    FieldDescriptorProto.TYPE_BOOL,
    FieldDescriptorProto.TYPE_BYTES,
    FieldDescriptorProto.TYPE_DOUBLE,
    FieldDescriptorProto.TYPE_FIXED32,
    FieldDescriptorProto.TYPE_INT32,
    FieldDescriptorProto.TYPE_INT64,
    FieldDescriptorProto.TYPE_SINT64,
    FieldDescriptorProto.TYPE_STRING,
    FieldDescriptorProto.TYPE_UINT32,
)


def mutate(file: FileDescriptorProto, random: Random) -> str:
    """Makes one change to the file. Returns its description."""
    while True:
        done = random.choice(MUTATIONS)(file, random)
        if done:
            return done


def messages(parents: Sequence[DescriptorProto]) -> Iterator[DescriptorProto]:
    """These messages and their nested messages, without map entries."""
    for each in parents:
        if not each.options.map_entry:
            yield each
            yield from messages(each.nested_type)


def _message(file: FileDescriptorProto, random: Random) -> DescriptorProto:
    return random.choice([each for each in messages(file.message_type) if each.field])


def _field(file: FileDescriptorProto, random: Random) -> tuple[DescriptorProto, FieldDescriptorProto]:
    message = _message(file, random)
    return message, random.choice(message.field)


def _enum(file: FileDescriptorProto, random: Random) -> EnumDescriptorProto:
    nested = [each for message in messages(file.message_type) for each in message.enum_type]
    return random.choice([*file.enum_type, *nested])


def remove_field(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    if field.HasField("oneof_index"):
        return ""  # a oneof must not become empty
    index = list(message.field).index(field)
    del message.field[index]
    return f"removed {message.name}.{field.name}"


def rename_field(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    if field.type_name.endswith("Entry"):
        return ""  # a map's entry is named after its field
    was, field.name = field.name, f"{field.name}_renamed"
    field.json_name = ""
    return f"renamed {message.name}.{was}"


def renumber_field(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    field.number = random.randint(200, 300)
    return f"renumbered {message.name}.{field.name}"


def retype_field(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    wanted = random.choice(_SCALARS)
    if wanted == field.type:
        return ""
    field.type = wanted
    field.ClearField("type_name")
    return f"{message.name}.{field.name} is a {FieldDescriptorProto.Type.Name(wanted)}"


def change_cardinality(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    if field.HasField("oneof_index") or field.type_name.endswith("Entry"):
        return ""
    single = field.label == FieldDescriptorProto.LABEL_OPTIONAL
    field.label = FieldDescriptorProto.LABEL_REPEATED if single else FieldDescriptorProto.LABEL_OPTIONAL
    return f"{message.name}.{field.name} is {'repeated' if single else 'single'}"


def make_optional(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    if field.HasField("oneof_index") or field.label == FieldDescriptorProto.LABEL_REPEATED:
        return ""
    field.proto3_optional, field.oneof_index = True, len(message.oneof_decl)
    message.oneof_decl.add(name=f"_{field.name}")
    return f"{message.name}.{field.name} is optional"


def put_into_oneof(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    if field.HasField("oneof_index") or field.label == FieldDescriptorProto.LABEL_REPEATED:
        return ""
    if any(each.proto3_optional for each in message.field):
        return ""  # those of `optional` fields have to stay last
    field.oneof_index = len(message.oneof_decl)
    message.oneof_decl.add(name="picked")
    return f"{message.name}.{field.name} is in a oneof"


def rename_oneof(file: FileDescriptorProto, random: Random) -> str:
    message = _message(file, random)
    if not message.oneof_decl or message.oneof_decl[0].name.startswith("_"):
        return ""
    message.oneof_decl[0].name = "renamed"
    return f"renamed the oneof of {message.name}"


def set_json_name(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    field.json_name = f"x{field.number}"
    return f"{message.name}.{field.name} is called otherwise in JSON"


def add_field(file: FileDescriptorProto, random: Random) -> str:
    message = _message(file, random)
    number = random.randint(200, 300)
    message.field.add(name=f"added_{number}", number=number, label=1, type=random.choice(_SCALARS))
    return f"added a field to {message.name}"


def add_message(file: FileDescriptorProto, random: Random) -> str:
    added = file.message_type.add(name="Added")
    added.field.add(name="number", number=1, label=1, type=FieldDescriptorProto.TYPE_INT32)
    return "added a message"


def remove_message(file: FileDescriptorProto, random: Random) -> str:
    used = {each.type_name.rpartition(".")[2] for message in messages(file.message_type) for each in message.field}
    used |= {t.rpartition(".")[2] for s in file.service for m in s.method for t in (m.input_type, m.output_type)}
    free = [index for index, each in enumerate(file.message_type) if each.name not in used and not each.nested_type]
    if not free:
        return ""
    index = random.choice(free)
    name = file.message_type[index].name
    del file.message_type[index]
    return f"removed {name}"


def add_value(file: FileDescriptorProto, random: Random) -> str:
    enum = _enum(file, random)
    enum.value.add(name=f"{enum.name.upper()}_ADDED", number=99)
    return f"added a value to {enum.name}"


def remove_value(file: FileDescriptorProto, random: Random) -> str:
    enum = _enum(file, random)
    del enum.value[random.randrange(1, len(enum.value))]
    return f"removed a value of {enum.name}"


def rename_value(file: FileDescriptorProto, random: Random) -> str:
    enum = _enum(file, random)
    enum.value[random.randrange(len(enum.value))].name = f"{enum.name.upper()}_RENAMED"
    return f"renamed a value of {enum.name}"


def renumber_value(file: FileDescriptorProto, random: Random) -> str:
    enum = _enum(file, random)
    enum.value[random.randrange(1, len(enum.value))].number = random.randint(50, 80)
    return f"renumbered a value of {enum.name}"


def swap_values(file: FileDescriptorProto, random: Random) -> str:
    enum = _enum(file, random)
    one, other = enum.value[1], enum.value[2]
    one.number, other.number = other.number, one.number
    return f"swapped two values of {enum.name}"


def swap_fields(file: FileDescriptorProto, random: Random) -> str:
    message = _message(file, random)
    if len(message.field) < 2:
        return ""
    one, other = random.sample(list(message.field), 2)
    one.number, other.number = other.number, one.number
    return f"swapped {message.name}.{one.name} and {other.name}"


def require(file: FileDescriptorProto, random: Random) -> str:
    """Adds a rule that refuses messages which were valid: on a field, a new field, a oneof, or the message."""
    message, field = _field(file, random)
    match random.randrange(4):
        case 0:
            field.options.Extensions[validate_pb2.field].required = True
        case 1:
            added = message.field.add(name="demanded", number=199, label=1, type=FieldDescriptorProto.TYPE_STRING)
            added.options.Extensions[validate_pb2.field].string.min_len = 1
        case 2:
            if not message.oneof_decl or message.oneof_decl[0].name.startswith("_"):
                return ""
            message.oneof_decl[0].options.Extensions[validate_pb2.oneof].required = True
        case _:
            rule = message.options.Extensions[validate_pb2.message].cel.add(id="never", message="never")
            rule.expression = "false"
    return f"requires more of {message.name}"


def unreserve(file: FileDescriptorProto, random: Random) -> str:
    message = random.choice(list(messages(file.message_type)))
    if not message.reserved_range:
        return ""
    message.ClearField(random.choice(("reserved_range", "reserved_name")))
    return f"{message.name} reserves less"


def remove_rpc(file: FileDescriptorProto, random: Random) -> str:
    service = random.choice(file.service)
    name = service.method[0].name
    del service.method[0]
    return f"removed RPC {name}"


def change_rpc(file: FileDescriptorProto, random: Random) -> str:
    method = random.choice(random.choice(file.service).method)
    match random.randrange(4):
        case 0:
            method.input_type = method.output_type
        case 1:
            method.output_type = method.input_type
        case 2:
            method.server_streaming = not method.server_streaming
        case _:
            method.options.idempotency_level = MethodOptions.IDEMPOTENT
    return f"changed RPC {method.name}"


def remove_service(file: FileDescriptorProto, random: Random) -> str:
    del file.service[0]
    return "removed the service"


def set_go_package(file: FileDescriptorProto, random: Random) -> str:
    file.options.go_package = "example.com/other"
    return "changed the Go package"


def deprecate(file: FileDescriptorProto, random: Random) -> str:
    message, field = _field(file, random)
    field.options.deprecated = True
    return f"deprecated {message.name}.{field.name}"


MUTATIONS: tuple[Mutation, ...] = (
    remove_field,
    rename_field,
    renumber_field,
    retype_field,
    change_cardinality,
    make_optional,
    put_into_oneof,
    rename_oneof,
    set_json_name,
    add_field,
    add_message,
    remove_message,
    add_value,
    remove_value,
    rename_value,
    renumber_value,
    swap_values,
    swap_fields,
    require,
    unreserve,
    remove_rpc,
    change_rpc,
    remove_service,
    set_go_package,
    deprecate,
)
