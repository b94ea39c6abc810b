"""The changes of the contracts of the messages that two templates name, as sentences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from google.protobuf import text_format
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from handrail.analysis.diff.pairs import Change
from handrail.mesh.template import Template
from handrail.validate import validate_pb2

_SCALARS = {
    getattr(FieldDescriptor, name): name.removeprefix("TYPE_").lower()
    for name in dir(FieldDescriptor)
    if name.startswith("TYPE_")
}


def contract_changes(old: Template, new: Template) -> Iterator[Change]:
    """The changes of messages and enums that both versions refer to. Added and removed ones show in the template."""
    was, now = (template.contracts.definitions(template.message_types) for template in (old, new))
    for full_name in sorted(was.keys() & now.keys()):
        before, after = was[full_name], now[full_name]
        if isinstance(before, Descriptor) and isinstance(after, Descriptor):
            yield from _message_changes(before, after)
        elif isinstance(before, EnumDescriptor) and isinstance(after, EnumDescriptor):
            yield from _enum_changes(before, after)
        else:
            yield Change(f"contracts.{full_name}", f"{full_name} is {_article(after)} instead of {_article(before)}.")


def _article(definition: Descriptor | EnumDescriptor) -> str:
    return "a message" if isinstance(definition, Descriptor) else "an enum"


def _message_changes(old: Descriptor, new: Descriptor) -> Iterator[Change]:
    name, path = new.full_name, f"contracts.{new.full_name}"
    for number in sorted({*old.fields_by_number, *new.fields_by_number}):
        was, now = old.fields_by_number.get(number), new.fields_by_number.get(number)
        if now is None and was is not None:
            yield Change(f"{path}.{was.name}", f"{name} no longer has a field {was.name} ({_type(was)}).")
        elif was is None and now is not None:
            yield Change(f"{path}.{now.name}", f"{name} has a new field {now.name} ({_type(now)}).")
        elif was is not None and now is not None:
            yield from (Change(f"{path}.{now.name}", text) for text in _field_changes(name, was, now))
    before, after = _message_rules(old), _message_rules(new)
    if before != after:
        yield Change(path, _new_rules(name, before, after))


def _field_changes(name: str, old: FieldDescriptor, new: FieldDescriptor) -> Iterator[str]:
    if old.name != new.name:
        yield f"Field {old.name} of {name} is renamed to {new.name}: conditions and JSON must use the new name."
    if _type(old) != _type(new):
        yield f"Field {new.name} of {name} is {_type(new)} instead of {_type(old)}."
    was, now = _oneof(old), _oneof(new)
    if was != now:
        yield f"Field {new.name} of {name} is in {now or 'no oneof'} instead of {was or 'no oneof'}."
    before, after = _field_rules(old), _field_rules(new)
    if before != after:
        yield _new_rules(f"field {new.name} of {name}", before, after)


def _enum_changes(old: EnumDescriptor, new: EnumDescriptor) -> Iterator[Change]:
    was = {value.name: value.number for value in old.values}
    now = {value.name: value.number for value in new.values}
    path = f"contracts.{new.full_name}"
    for each in _only(now, was):
        yield Change(f"{path}.{each}", f"Enum {new.full_name} has a new value {each} ({now[each]}).")
    for each in _only(was, now):
        yield Change(f"{path}.{each}", f"Enum {new.full_name} no longer has a value {each} ({was[each]}).")
    for each in was.keys() & now.keys():
        if was[each] != now[each]:
            yield Change(f"{path}.{each}", f"{each} of enum {new.full_name} is {now[each]} instead of {was[each]}.")


def _only(these: Iterable[str], others: Iterable[str]) -> list[str]:
    known = set(others)
    return [each for each in these if each not in known]


def _type(field: FieldDescriptor) -> str:
    """The type of a field as written in a .proto file."""
    refers = field.message_type or field.enum_type
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        key, value = (field.message_type.fields_by_name[each] for each in ("key", "value"))
        return f"map<{_type(key)}, {_type(value)}>"
    name = refers.full_name if refers is not None else _SCALARS[field.type]
    if field.is_repeated:
        return f"repeated {name}"
    optional = field.has_presence and field.message_type is None and not _oneof(field)
    return f"optional {name}" if optional else name


def _oneof(field: FieldDescriptor) -> str:
    """The oneof of a field; ignores the synthetic one of `optional`."""
    oneof = field.containing_oneof
    return "" if oneof is None or oneof.name == f"_{field.name}" else f"oneof {oneof.name}"


def _new_rules(what: str, before: str, after: str) -> str:
    return f"The validation rules on {what} are {after or 'gone'} instead of {before or 'none'}."


def _message_rules(message: Descriptor) -> str:
    return _on_one_line(message.GetOptions().Extensions[validate_pb2.message])


def _field_rules(field: FieldDescriptor) -> str:
    return _on_one_line(field.GetOptions().Extensions[validate_pb2.field])


def _on_one_line(rules: Message) -> str:
    text = text_format.MessageToString(rules, as_one_line=True)
    return f"{{{text}}}" if text else ""
