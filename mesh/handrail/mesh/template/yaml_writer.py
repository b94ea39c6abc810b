"""Writes templates as YAML in the style of people, with notes as comments."""

from __future__ import annotations

import json
import math
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import cast

import yaml
from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from handrail.mesh.printable import clean
from handrail.mesh.template import durations

_WIDTH = 120
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")

Notes = Mapping[str, Sequence[str]]


def to_text(template: Message, notes: Notes = MappingProxyType({})) -> str:
    """The YAML of a template. Notes, keyed by path as in findings, follow the part they are about, or precede it."""
    lines = [line for note in notes.get("", ()) for line in _comment(note, 0)]
    return "\n".join([*lines, *_block(template, "", 0, notes), ""])


def _block(message: Message, path: str, indent: int, notes: Notes) -> Iterator[str]:
    for field, value in message.ListFields():
        field_path = f"{path}.{field.name}" if path else field.name
        if field.is_repeated and field.message_type is not None:
            yield from _with_notes(f"{field.name}:", field_path, indent, notes)
            for index, item in enumerate(value):
                yield from _item(item, f"{field_path}[{index}]", indent + 2, notes)
        elif field.message_type is not None and not _is_short(value, field_path, notes):
            yield from _with_notes(f"{field.name}:", field_path, indent, notes)
            yield from _block(value, field_path, indent + 2, notes)
        else:
            yield from _with_notes(f"{field.name}: {_value(field, value)}", field_path, indent, notes)


def _item(item: Message, path: str, indent: int, notes: Notes) -> Iterator[str]:
    """One message of a list: on one line if it is short, else as a block after a dash."""
    if len(item.ListFields()) <= 2 and not _noted_inside(path, notes):
        yield from _with_notes(f"- {_flow(item)}", path, indent, notes)
        return
    for note in notes.get(path, ()):
        yield from _comment(note, indent)
    for number, line in enumerate(_block(item, path, indent + 2, notes)):
        yield f"{' ' * indent}- {line[indent + 2 :]}" if number == 0 else line


def _is_short(value: Message, path: str, notes: Notes) -> bool:
    """Whether a message fits on one line: it contains no messages, and its parts have no notes."""
    nested = any(
        field.message_type is not None and not isinstance(part, Duration) for field, part in value.ListFields()
    )
    return isinstance(value, Duration) or not (nested or _noted_inside(path, notes))


def _noted_inside(path: str, notes: Notes) -> bool:
    return any(noted.startswith(f"{path}.") for noted in notes)


def _with_notes(text: str, path: str, indent: int, notes: Notes) -> Iterator[str]:
    """A line with its notes: behind it if they fit, else above."""
    line = " " * indent + text
    note = "; ".join(notes.get(path, ()))
    if note and len(line) + len(note) + 4 > _WIDTH:
        yield from _comment(note, indent)
        yield line
    else:
        yield f"{line} # {clean(note)}" if note else line


def _comment(note: str, indent: int) -> list[str]:
    lines = textwrap.wrap(clean(note), _WIDTH - indent - 2, break_long_words=False, break_on_hyphens=False)
    return [f"{' ' * indent}# {line}" for line in lines]


def _flow(message: Message) -> str:
    pairs = (f"{field.name}: {_value(field, value, inside=True)}" for field, value in message.ListFields())
    return "{" + ", ".join(pairs) + "}"


def _value(field: FieldDescriptor, value: object, *, inside: bool = False) -> str:
    if field.is_repeated:
        return "[" + ", ".join(_single(field, each, inside=True) for each in cast("Sequence[object]", value)) + "]"
    return _single(field, value, inside=inside)


def _single(field: FieldDescriptor, value: object, *, inside: bool) -> str:
    if field.enum_type is not None:
        return _enum(field.enum_type, cast("int", value))
    if isinstance(value, Duration):
        return durations.written(value)
    if isinstance(value, Message):
        return _flow(value)
    if isinstance(value, float):
        return f"{value:g}"
    return _text(value, inside=inside) if isinstance(value, str) else json.dumps(value)


def _enum(enum: EnumDescriptor, number: int) -> str:
    prefix = enum.values_by_number[0].name.removesuffix("UNSPECIFIED")
    return enum.values_by_number[number].name.removeprefix(prefix)


def _text(text: str, *, inside: bool) -> str:
    """A text, quoted unless it reads back unchanged without quotes; only words do `inside` a list or mapping."""
    plain = bool(_WORD.fullmatch(text)) if inside else text.isprintable() and text == text.strip()
    try:
        if plain and yaml.safe_load(f"key: {text}") == {"key": text}:
            return text
    except yaml.YAMLError:
        pass
    quoted: str = yaml.safe_dump(text, default_style='"', allow_unicode=True, width=math.inf)
    # YAML would keep characters that change the writing direction.
    return "".join(each if each.isprintable() else f"\\U{ord(each):08x}" for each in quoted.strip())
