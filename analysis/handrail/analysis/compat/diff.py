"""What changed between two states of a project's contracts. Pure.

It finds at least what `buf breaking` finds in its category FILE. Changes are graded by what they do to messages in
transit: a flow's events may be written under the old contracts and read under the new ones, or the other way round.
Requests of RPCs come from unknown clients, so a rule that refuses valid requests is breaking.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

from handrail.analysis.compat import validation as contract_rules
from handrail.analysis.compat.change import Change, Level
from handrail.analysis.compat.contract_set import ContractSet, Defined, Definition, is_real_oneof
from handrail.analysis.compat.enums import value_changes
from handrail.analysis.compat.fields import FieldDiff, one_line, pairs
from handrail.analysis.compat.validation import Rules

_WIRE, _SOURCE, _TIGHTENED, _FINE = Level.BREAKING_WIRE, Level.BREAKING_SOURCE, Level.TIGHTENED, Level.COMPATIBLE
_WIDER_RULES = frozenset({"RULE_LOOSENED", "RULE_REMOVED"})
_SILENT_OPTIONS = frozenset({"deprecated", "java_generate_equals_and_hash", "map_entry", "allow_alias"})


def diff(before: ContractSet, after: ContractSet) -> tuple[Change, ...]:
    """Lists the changes of the project's own definitions, worst first, then by name."""
    return tuple(sorted(_Diff(before, after).changes(), key=lambda change: (-change.level, change)))


class _Diff:
    def __init__(self, before: ContractSet, after: ContractSet) -> None:
        self.before = before
        self.after = after

    def changes(self) -> Iterator[Change]:
        for change in self._graded_for_flows():
            refuses_requests = change.level is _TIGHTENED and change.definition in self.before.requests
            yield replace(change, level=Level.BREAKING_REQUEST) if refuses_requests else change

    def _graded_for_flows(self) -> Iterator[Change]:
        yield from self._files()
        yield from self._definitions("message", self.before.messages, self.after.messages, self._message)
        yield from self._definitions("enum", self.before.enums, self.after.enums, self._enum)
        yield from self._definitions("service", self.before.services, self.after.services, self._service)

    def _definitions(
        self,
        kind: str,
        before: Mapping[str, Defined[Definition]],
        after: Mapping[str, Defined[Definition]],
        compare: Callable[[str, Defined[Definition], Defined[Definition]], Iterator[Change]],
    ) -> Iterator[Change]:
        """Yields what was removed, moved to another file or added, and the result of `compare` for the rest."""
        for name, old in sorted(before.items()):
            new = after.get(name)
            if old.file.name not in self.before.files or _is_map_entry(old):
                continue
            if new is None:
                yield Change(name, "", f"{kind.upper()}_REMOVED", _WIRE, old.file.name, f"{kind} {name} is gone")
            elif old.file.name != new.file.name:
                text = f"{name} was in {old.file.name}, and is in {new.file.name}"
                yield Change(name, "", f"{kind.upper()}_MOVED", _SOURCE, new.file.name, text)
        for name, new in sorted(after.items()):
            if new.file.name not in self.after.files:
                continue
            known = before.get(name)
            if known is not None:
                yield from compare(name, known, new)
            elif not _is_map_entry(new):
                yield Change(name, "", f"{kind.upper()}_ADDED", _FINE, new.file.name, f"{kind} {name} is new")

    def _files(self) -> Iterator[Change]:
        for path, old in self.before.files.items():
            new = self.after.files.get(path)
            if new is None:
                yield Change(path, "", "FILE_REMOVED", _SOURCE, path, f"file {path} is gone")
                continue
            if (old.syntax or "proto2", old.edition) != (new.syntax or "proto2", new.edition):
                text = f"{path} was {_dialect(old)}, and is {_dialect(new)}: presence and enums change their meaning"
                yield Change(path, "", "FILE_CHANGED", _WIRE, path, text)
            if old.package != new.package:
                text = f"package was {old.package or 'none'}, and is {new.package or 'none'}"
                yield Change(path, "", "FILE_CHANGED", _WIRE, path, text)
            for text in _changed_options(old.options, new.options):
                yield Change(path, "", "FILE_CHANGED", _SOURCE, path, text)
            # The bytes of an extension are part of the message that it extends.
            kept = {(each.extendee, each.number) for each in new.extension}
            for each in old.extension:
                if (each.extendee, each.number) not in kept:
                    text = f"extension {each.name} of {each.extendee.removeprefix('.')} is gone"
                    yield Change(path, each.name, "EXTENSION_REMOVED", _WIRE, path, text)

    def _message(self, name: str, old: Defined[DescriptorProto], new: Defined[DescriptorProto]) -> Iterator[Change]:
        file = new.file.name
        yield from FieldDiff(name, old, new, self.after).changes()
        oneofs = {each.name for index, each in enumerate(new.proto.oneof_decl) if is_real_oneof(new.proto, index)}
        for index, oneof in enumerate(old.proto.oneof_decl):
            if is_real_oneof(old.proto, index) and oneof.name not in oneofs:
                yield Change(name, oneof.name, "ONEOF_REMOVED", _SOURCE, file, f"oneof {oneof.name} is gone")
        for text in _changed_options(old.proto.options, new.proto.options):
            yield Change(name, "", "MESSAGE_OPTION", _WIRE, file, text)
        yield from _reserved(name, file, old.proto, new.proto)
        kept = {(each.start, each.end) for each in new.proto.extension_range}
        for each in old.proto.extension_range:
            if (each.start, each.end) not in kept:
                text = f"extension range {each.start} to {each.end - 1} is gone"
                yield Change(name, "", "EXTENSION_REMOVED", _SOURCE, file, text)
        yield from self._rules(name, file, old.proto, new.proto)

    def _rules(self, name: str, file: str, old: DescriptorProto, new: DescriptorProto) -> Iterator[Change]:
        yield from _rule_changes(name, "", file, contract_rules.message_rules(old), contract_rules.message_rules(new))
        before = {oneof.name: contract_rules.oneof_rules(oneof) for oneof in old.oneof_decl}
        for oneof in new.oneof_decl:
            rules = contract_rules.oneof_rules(oneof)
            yield from _rule_changes(name, oneof.name, file, before.get(oneof.name, {}), rules)
        for was, field in pairs(old, new):
            if was is not None and field is not None:
                rules, now = contract_rules.field_rules(was), contract_rules.field_rules(field)
                yield from _rule_changes(name, was.name, file, rules, now)

    def _enum(
        self, name: str, old: Defined[EnumDescriptorProto], new: Defined[EnumDescriptorProto]
    ) -> Iterator[Change]:
        file = new.file.name
        yield from value_changes(name, file, old.proto, new.proto)
        for text in _changed_options(old.proto.options, new.proto.options):
            yield Change(name, "", "ENUM_OPTION", _WIRE, file, text)
        yield from _reserved(name, file, old.proto, new.proto)

    def _service(
        self, name: str, old: Defined[ServiceDescriptorProto], new: Defined[ServiceDescriptorProto]
    ) -> Iterator[Change]:
        file = new.file.name
        after = {method.name: method for method in new.proto.method}
        for method in old.proto.method:
            kept = after.get(method.name)
            if kept is None:
                yield Change(name, method.name, "RPC_REMOVED", _WIRE, file, f"RPC {method.name} is gone")
                continue
            for what, was, now in (
                ("takes", method.input_type, kept.input_type),
                ("returns", method.output_type, kept.output_type),
            ):
                if was != now:
                    text = f"RPC {method.name} {what} {now.removeprefix('.')}; it was {was.removeprefix('.')}"
                    yield Change(name, method.name, "RPC_TYPE", _WIRE, file, text)
            if (method.client_streaming, method.server_streaming) != (kept.client_streaming, kept.server_streaming):
                text = f"RPC {method.name} streams in other directions than before"
                yield Change(name, method.name, "RPC_STREAMING", _WIRE, file, text)
            if method.options.idempotency_level != kept.options.idempotency_level:
                text = f"RPC {method.name} has another idempotency level"
                yield Change(name, method.name, "RPC_OPTION", _SOURCE, file, text)
        for added in after.keys() - {method.name for method in old.proto.method}:
            yield Change(name, added, "RPC_ADDED", _FINE, file, f"RPC {added} is new")


def _rule_changes(name: str, member: str, file: str, before: Rules, after: Rules) -> Iterator[Change]:
    """The changes between the validation rules of one field, oneof or message."""
    for code, text in contract_rules.compare(before, after):
        yield Change(name, member, code, _FINE if code in _WIDER_RULES else _TIGHTENED, file, text)


def _is_map_entry(defined: Defined[Definition]) -> bool:
    proto: Message = defined.proto
    return isinstance(proto, DescriptorProto) and proto.options.map_entry


def _reserved(
    name: str, file: str, old: DescriptorProto | EnumDescriptorProto, new: DescriptorProto | EnumDescriptorProto
) -> Iterator[Change]:
    kept = [(each.start, each.end) for each in new.reserved_range]
    # The end of a range is exclusive for messages and inclusive for enums.
    beyond = 1 if isinstance(old, DescriptorProto) else 0
    for each in old.reserved_range:
        if not any(start <= each.start and each.end <= end for start, end in kept):
            text = f"numbers {each.start} to {each.end - beyond} are no longer reserved"
            yield Change(name, "", "RESERVED_REMOVED", _SOURCE, file, text)
    for gone in sorted(set(old.reserved_name) - set(new.reserved_name)):
        yield Change(name, "", "RESERVED_REMOVED", _SOURCE, file, f"the name {gone} is no longer reserved")


def _changed_options(old: Message, new: Message) -> Iterator[str]:
    for option in old.DESCRIPTOR.fields:
        if option.name in _SILENT_OPTIONS or option.is_repeated:
            continue
        was, now = getattr(old, option.name), getattr(new, option.name)
        if was != now:
            yield f"option {option.name} was {one_line(was)}, and is {one_line(now)}"


def _dialect(file: FileDescriptorProto) -> str:
    return f"edition {file.edition}" if file.edition else file.syntax or "proto2"
