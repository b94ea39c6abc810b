"""Writes the tables of docs/templates.md, from the contract of templates and its comments.

`python -m docs.template_fields` writes them anew; a test compares them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import cast

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

from handrail.v1.decision_pb2 import RuleAction
from handrail.v1.template_pb2 import FlowTemplate
from handrail.validate import validate_pb2

PAGE = Path(__file__).with_name("templates.md")
_BEGIN, _END = "<!-- fields: python -m docs.template_fields -->\n", "<!-- end of fields -->\n"
_DURATION = "google.protobuf.Duration"
_WORDS = {
    FieldDescriptor.TYPE_STRING: "text",
    FieldDescriptor.TYPE_UINT32: "whole number",
    FieldDescriptor.TYPE_DOUBLE: "number",
    FieldDescriptor.TYPE_BOOL: "true or false",
}


def page(text: str) -> str:
    """The page with its tables as they have to be."""
    before, begin, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE} does not say where its tables begin and end")
    return f"{before}{begin}\n{tables()}\n{end}{after}"


def tables() -> str:
    """A table for each message of a template and for each of its choices."""
    comments = _comments()
    parts = [FlowTemplate.DESCRIPTOR]
    lines: list[str] = []
    choices: dict[str, FieldDescriptor] = {}
    for part in parts:
        lines += [f"## {part.name}", "", _sentence(part.name, comments[part.full_name]), ""]
        lines += ["| field | value | |", "| --- | --- | --- |"]
        for field in part.fields:
            if field.enum_type is not None:
                choices.setdefault(field.enum_type.full_name, field)
            elif field.message_type is not None and field.message_type not in parts and not _is_duration(field):
                parts.append(field.message_type)
            text = _sentence(field.name, comments[field.full_name])
            lines.append(f"| `{field.name}` | {_value(field)}{', required' if _is_required(field) else ''} | {text} |")
        lines.append("")
    for name, field in choices.items():
        choice = cast("EnumDescriptor", field.enum_type)
        lines += [f"## {choice.name}", "", _sentence(choice.name, comments[name]), ""]
        lines += ["| value | |", "| --- | --- |", *_values(field, choice, comments), ""]
    return "\n".join(lines)


def _values(field: FieldDescriptor, choice: EnumDescriptor, comments: dict[str, str]) -> Iterator[str]:
    allowed = getattr(_rules(field).repeated.items.enum, "in")
    prefix = choice.values[0].name.removesuffix("UNSPECIFIED")
    scope = choice.full_name.rpartition(".")[0]
    for value in choice.values[1:]:
        if not allowed or value.number in allowed:
            yield f"| `{value.name.removeprefix(prefix)}` | {comments[f'{scope}.{value.name}']} |"


def _value(field: FieldDescriptor) -> str:
    if _is_duration(field):
        word = "duration"
    elif field.enum_type is not None:
        word = f"[{field.enum_type.name}](#{field.enum_type.name.lower()})"
    elif field.message_type is not None:
        word = f"[{field.message_type.name}](#{field.message_type.name.lower()})"
    else:
        word = _WORDS[field.type]
    return f"list of {word}" if field.is_repeated else word


def _is_duration(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.full_name == _DURATION


def _is_required(field: FieldDescriptor) -> bool:
    rules = _rules(field)
    refuses_nothing = (
        rules.repeated.min_items,
        rules.string.min_len,
        rules.enum.not_in,
        rules.uint32.gte,
        rules.string.pattern and not re.search(rules.string.pattern, ""),
    )
    return rules.required or (any(refuses_nothing) and not field.has_presence)


def _rules(field: FieldDescriptor) -> validate_pb2.FieldRules:
    return field.GetOptions().Extensions[validate_pb2.field]


def _sentence(name: str, comment: str) -> str:
    """A comment as a sentence about its own line: `name is the flow type.` is `The flow type.`"""
    text = re.sub(rf"^{name} (is|are) ", "", comment)
    if "_" in name:
        text = re.sub(rf"^{name} ", f"`{name}` ", text)
    return (text[:1].upper() + text[1:]).replace("|", "\\|")


def _comments() -> dict[str, str]:
    """The comments of the contracts, by the full name of what they are about."""
    image = (resources.files("handrail.v1") / "descriptors.binpb").read_bytes()
    wanted = {FlowTemplate.DESCRIPTOR.file.name, RuleAction.DESCRIPTOR.file.name, "handrail/v1/act.proto"}
    found: dict[str, str] = {}
    for file in FileDescriptorSet.FromString(image).file:
        if file.name in wanted:
            by_path = {tuple(each.path): each.leading_comments for each in file.source_code_info.location}
            found |= {name: " ".join(by_path.get(path, "").split()) for path, name in _names(file)}
    return found


def _names(file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    for number, message in enumerate(file.message_type):
        yield from _of_message((4, number), file.package, message)
    for number, enum in enumerate(file.enum_type):
        yield (5, number), f"{file.package}.{enum.name}"
        yield from (((5, number, 2, n), f"{file.package}.{value.name}") for n, value in enumerate(enum.value))


def _of_message(path: Sequence[int], scope: str, message: DescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
    name = f"{scope}.{message.name}"
    yield tuple(path), name
    yield from (((*path, 2, number), f"{name}.{field.name}") for number, field in enumerate(message.field))


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text("utf-8")), "utf-8")
