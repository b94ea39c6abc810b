"""Templates as YAML: the JSON form of proto3 with short enum names, durations such as `2h`, and errors that name the
line and column.

People write and review templates, so everything that YAML could hide is refused: duplicate keys, anchors and aliases,
tags, several documents, unknown fields.
"""

from __future__ import annotations

import re
from typing import NamedTuple, Protocol, cast

import yaml
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from handrail.mesh.conditions.look_ups import nearest
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import cut
from handrail.mesh.template import durations
from handrail.mesh.template.source_positions import Place, Places
from handrail.v1.error_reason_pb2 import ErrorReason
from handrail.v1.template_pb2 import FlowTemplate

MAX_BYTES = 256 * 1024
"""The largest accepted template, in bytes of UTF-8. The largest one that its contract allows is far smaller."""

MAX_DEPTH = 16
"""The maximum nesting of a template; its contract needs six levels."""

MAX_VALUES = 20_000
"""The most keys and values, lists and mappings of a template. Each takes 60 microseconds to read."""

_NULL = "tag:yaml.org,2002:null"


class _Mark(Protocol):
    """A position in the text, counted from 0."""

    line: int
    column: int


class Written(NamedTuple):
    """A template as written, with the places of its parts."""

    template: FlowTemplate
    places: Places


def load_yaml(text: str) -> FlowTemplate:
    """Reads a template. Raises the errors of `read_yaml`."""
    return read_yaml(text).template


def read_yaml(text: str) -> Written:
    """Reads a template and the places of its parts.

    Raises `HandrailError` (MALFORMED or TOO_LARGE), which names the error with line, column and field; the metadata has
    `line` and `column`, from 1. The type-check, not this reader, judges whether the template makes sense.
    """
    size = len(text.encode(errors="surrogatepass"))
    if size > MAX_BYTES:
        raise HandrailError(
            ErrorReason.ERROR_REASON_TOO_LARGE,
            f"the template has {size:,} bytes, at most {MAX_BYTES:,} are accepted",
        )
    try:
        _refuse_what_hides(text)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise _malformed(error.problem_mark, "", error.problem or "not YAML") from error
    except yaml.YAMLError as error:
        raise HandrailError(ErrorReason.ERROR_REASON_MALFORMED, f"not YAML: {cut(str(error))}") from error
    written = Written(FlowTemplate(), Places())
    if node is None:
        raise HandrailError(ErrorReason.ERROR_REASON_MALFORMED, "this file contains no template")
    written.places.add("", _place(node.start_mark))
    _fill(written.template, node, "", written.places)
    return written


def _refuse_what_hides(text: str) -> None:
    """Checks the parser's events one by one, before anything is built from them."""
    depth = 0
    for number, event in enumerate(yaml.parse(text, Loader=yaml.SafeLoader)):
        if number > MAX_VALUES:
            raise HandrailError(
                ErrorReason.ERROR_REASON_TOO_LARGE,
                f"the template has more than {MAX_VALUES:,} keys and values; split the flow",
            )
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _malformed(event.start_mark, "", "a template can't have anchors and aliases; write the value out")
        tag: str | None = getattr(event, "tag", None)
        if tag is not None:
            raise _malformed(event.start_mark, "", f"a template can't have tags like {cut(tag)}; leave it out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise _malformed(event.start_mark, "", f"nested more than {MAX_DEPTH} levels deep")


def _fill(message: Message, node: Node, path: str, places: Places) -> None:
    if not isinstance(node, MappingNode):
        raise _malformed(node.start_mark, path, f"must be a mapping, like {message.DESCRIPTOR.fields[0].name}: …")
    definition = cast("Descriptor", message.DESCRIPTOR)
    fields = {name: field for field in definition.fields for name in (field.name, field.json_name)}
    seen: set[int] = set()
    for key, value in node.value:
        name = key.value if isinstance(key, ScalarNode) else ""
        field = fields.get(name)
        if field is None:
            known = [field.name for field in definition.fields]
            hint = nearest(name, known) or f"; known fields are {', '.join(known)}"
            raise _malformed(key.start_mark, path, f'there is no field "{cut(name)}"{hint}')
        if field.number in seen:
            raise _malformed(key.start_mark, path, f"field {field.name} occurs twice")
        seen.add(field.number)
        field_path = f"{path}.{field.name}" if path else field.name
        places.add(field_path, _place(key.start_mark))
        _set(message, field, value, field_path, places)


def _set(message: Message, field: FieldDescriptor, node: Node, path: str, places: Places) -> None:
    if field.is_repeated:
        if not isinstance(node, SequenceNode):
            raise _malformed(node.start_mark, path, "must be a list, like [a, b]")
        values = getattr(message, field.name)
        for index, item in enumerate(node.value):
            item_path = f"{path}[{index}]"
            places.add(item_path, _place(item.start_mark))
            if field.message_type is not None:
                _fill(values.add(), item, item_path, places)
            else:
                values.append(_scalar(field, item, item_path))
    elif field.message_type is None:
        setattr(message, field.name, _scalar(field, node, path))
    elif field.message_type.full_name == Duration.DESCRIPTOR.full_name:
        getattr(message, field.name).CopyFrom(_duration(_text(node, path), node, path))
    else:
        child = getattr(message, field.name)
        child.SetInParent()
        _fill(child, node, path, places)


def _scalar(field: FieldDescriptor, node: Node, path: str) -> str | int | float | bool:
    text = _text(node, path)
    if field.type == FieldDescriptor.TYPE_STRING:
        return text  # as written: `count: 3` and `when: true` need no quotes
    if field.enum_type is not None:
        return _enum(field.enum_type, text, node, path)
    if field.type == FieldDescriptor.TYPE_BOOL:
        if text not in ("true", "false"):
            raise _malformed(node.start_mark, path, f'"{cut(text)}" is neither true nor false')
        return text == "true"
    if field.type == FieldDescriptor.TYPE_UINT32:
        if not re.fullmatch(r"[0-9]{1,10}", text) or int(text) >= 2**32:
            raise _malformed(node.start_mark, path, f'"{cut(text)}" is not a whole number from 0 to {2**32 - 1:,}')
        return int(text)
    if not re.fullmatch(r"[0-9]{1,15}(\.[0-9]{1,15})?", text):
        raise _malformed(node.start_mark, path, f'"{cut(text)}" is not a number')
    return float(text)


def _enum(enum: EnumDescriptor, text: str, node: Node, path: str) -> int:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    value = enum.values_by_name.get(text) or enum.values_by_name.get(prefix + text)
    if value is None:
        known = [value.name.removeprefix(prefix) for value in enum.values if value.number]
        raise _malformed(node.start_mark, path, f'"{cut(text)}" is not one of {", ".join(known)}')
    return value.number


def _duration(text: str, node: Node, path: str) -> Duration:
    try:
        return durations.parse(text)
    except ValueError:
        raise _malformed(
            node.start_mark, path, f'"{cut(text)}" is not a duration, like 30s, 0.5s, 2h, 1h30m or 7d'
        ) from None


def _text(node: Node, path: str) -> str:
    if not isinstance(node, ScalarNode):
        raise _malformed(node.start_mark, path, "must be a single value")
    if node.tag == _NULL:
        raise _malformed(node.start_mark, path, "has no value; leave the field out, or give it a value")
    return str(node.value)


def _place(mark: _Mark) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _malformed(mark: _Mark | None, path: str, why: str) -> HandrailError:
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    return HandrailError(
        ErrorReason.ERROR_REASON_MALFORMED,
        f"line {line}, column {column}: {path + ': ' if path else ''}{why}",
        line=str(line),
        column=str(column),
        field=path,
    )
