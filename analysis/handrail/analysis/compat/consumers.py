"""The file of consumers: programs beside the templates' agents that read, send or call a project's contracts. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import yaml

from handrail.analysis.compat.contract_set import ContractSet
from handrail.mesh.errors import HandrailError
from handrail.v1.error_reason_pb2 import ErrorReason

_NAME = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*(\.\*)?", re.ASCII)
_LISTS = ("reads", "sends", "calls")


@dataclass(frozen=True, slots=True)
class Consumer:
    """A program that depends on contracts. `reads` and `sends` are full names of messages and enums, `calls` of RPCs or
    services; `payments.v1.*` stands for everything below it. `contact` says whom to tell."""

    name: str
    contact: str
    reads: tuple[str, ...] = ()
    sends: tuple[str, ...] = ()
    calls: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Everything it declares to depend on."""
        return (*self.reads, *self.sends, *self.calls)


@dataclass(frozen=True, slots=True)
class Use:
    """How a change affects a consumer: the affected names that it reads, sends and calls."""

    consumer: Consumer
    reads: tuple[str, ...]
    sends: tuple[str, ...]
    calls: tuple[str, ...]

    def __str__(self) -> str:
        listed = zip(_LISTS, (self.reads, self.sends, self.calls), strict=True)
        said = ", ".join(f"{verb} {', '.join(names)}" for verb, names in listed if names)
        return f"{said}; tell {self.consumer.contact}"


def parse(text: str) -> tuple[Consumer, ...]:
    """Parses the consumers in a YAML text. Raises MALFORMED, which says which entry is wrong."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError) as error:
        raise _malformed(f"it is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or set(document) != {"consumers"} or not isinstance(document["consumers"], list):
        raise _malformed("it has to hold a single list named consumers")
    found = tuple(_consumer(entry, number) for number, entry in enumerate(document["consumers"], start=1))
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise _malformed(f"two consumers have the name {twice[0]}")
    return found


def unknown(consumers: Iterable[Consumer], contracts: ContractSet) -> Iterator[tuple[Consumer, str]]:
    """Yields the names that no contract defines: misspelled, or removed."""
    services = {f"{name}.{rpc.name}" for name, each in contracts.services.items() for rpc in each.proto.method}
    known = [*contracts.messages, *contracts.enums, *contracts.services, *services]
    for consumer in consumers:
        for pattern in consumer.names:
            if not any(_matches(pattern, name) for name in known):
                yield consumer, pattern


def uses(consumers: Iterable[Consumer], definitions: Collection[str], calls: Collection[str]) -> Iterator[Use]:
    """Yields the consumers that read or send one of these messages or enums, or call one of these RPCs."""
    for consumer in consumers:
        use = Use(
            consumer,
            reads=_matched(consumer.reads, definitions),
            sends=_matched(consumer.sends, definitions),
            calls=_matched(consumer.calls, calls),
        )
        if use.reads or use.sends or use.calls:
            yield use


def _consumer(entry: object, number: int) -> Consumer:
    if not isinstance(entry, dict):
        raise _malformed(f"consumer {number} is not a mapping")
    name, contact = entry.get("name"), entry.get("contact")
    if not isinstance(name, str) or not name.strip() or not isinstance(contact, str) or not contact.strip():
        raise _malformed(f"consumer {number} needs a name and a contact")
    if strange := sorted(str(key) for key in entry if key not in ("name", "contact", *_LISTS)):
        raise _malformed(f"consumer {name} has an unknown key {strange[0]}; known: name, contact, {', '.join(_LISTS)}")
    consumer = Consumer(name, contact, *(_listed(name, key, entry.get(key, [])) for key in _LISTS))
    if not consumer.names:
        raise _malformed(f"consumer {name} reads, sends and calls nothing")
    return consumer


def _listed(name: str, key: str, listed: object) -> tuple[str, ...]:
    names = listed if isinstance(listed, list) else [listed]
    for each in names:
        if not isinstance(each, str) or not _NAME.fullmatch(each):
            raise _malformed(f'consumer {name}: "{each}" in {key} is not a full name like shop.v1.Order or shop.v1.*')
    return tuple(names)


def _matches(pattern: str, name: str) -> bool:
    stem = pattern.removesuffix(".*")
    # A caller of a service calls its RPCs; a reader of a message reads the types nested in it.
    return name == stem or name.startswith(f"{stem}.")


def _matched(patterns: Iterable[str], names: Collection[str]) -> tuple[str, ...]:
    wanted = list(patterns)
    return tuple(sorted(name for name in names if any(_matches(pattern, name) for pattern in wanted)))


def _malformed(why: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_MALFORMED, why)
