"""Parsers for the values of settings. Each takes text and raises ValueError with what is wrong."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import timedelta
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

Network = IPv4Network | IPv6Network
"""A range of addresses; one address is a network, too."""

_DURATION = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h)")
_SIZE = re.compile(r"([1-9][0-9]{0,8})(KiB|MiB|GiB|TiB)")
_SHIFTS = {"KiB": 10, "MiB": 20, "GiB": 30, "TiB": 40}
_UNITS = {
    "ms": timedelta(milliseconds=1),
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
}


def duration(text: str) -> timedelta:
    """Parses a duration: `15s`, `500ms`, `2m`, `1.5h`."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not a duration such as 500ms, 15s, 2m or 1.5h')
    return float(found[1]) * _UNITS[found[2]]


def age(text: str) -> timedelta | None:
    """Parses how long something is kept: `15m`, `24h`, `7d`, or `off` (None): for ever."""
    if text == "off":
        return None
    found = re.fullmatch(r"([0-9]{1,5})d", text)
    return timedelta(days=int(found[1])) if found is not None else duration(text)


def at_least(smallest: timedelta) -> Callable[[str], timedelta]:
    """A parser for durations of at least `smallest`."""

    def parse(text: str) -> timedelta:
        value = duration(text)
        if value < smallest:
            raise ValueError(f'"{text}" is less than {smallest.total_seconds():g} s')
        return value

    return parse


def one_of(*words: str) -> Callable[[str], str]:
    """A parser that accepts one of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is not one of {", ".join(words)}')
        return text

    return parse


def count(text: str) -> int:
    """Parses a whole number from 1."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f'"{text}" is not a whole number from 1')
    return int(text)


def number(text: str) -> int:
    """Parses a whole number from 0."""
    if not text.isascii() or not text.isdigit():
        raise ValueError(f'"{text}" is not a whole number from 0')
    return int(text)


def switch(text: str) -> bool:
    """Parses `on` or `off`."""
    return one_of("on", "off")(text) == "on"


def listed(text: str) -> tuple[str, ...]:
    """Parses values separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def networks(text: str) -> tuple[Network, ...]:
    """Parses addresses and networks such as 10.0.0.0/8, separated by commas."""
    return tuple(_network(each) for each in listed(text))


def _network(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise ValueError(f'"{text}" is not an address or network such as 10.0.0.7 or 10.0.0.0/8: {error}') from None


def some_of(*words: str) -> Callable[[str], tuple[str, ...]]:
    """A parser that accepts one or several of these words, separated by commas."""

    def parse(text: str) -> tuple[str, ...]:
        found = listed(text)
        if not found:
            raise ValueError(f"at least one of {', '.join(words)} is needed")
        return tuple(one_of(*words)(each) for each in found)

    return parse


def pairs(*names: str) -> Callable[[str], dict[str, str]]:
    """A parser for `name=value` with these names, separated by commas."""

    def parse(text: str) -> dict[str, str]:
        found = {}
        for each in listed(text):
            name, equals, value = each.partition("=")
            if not equals or not value:
                raise ValueError(f'"{each}" is not a pair such as {names[0]}=VALUE')
            found[one_of(*names)(name)] = value
        return found

    return parse


def key_set(text: str) -> str:
    """Parses a file or an address that `https.ask` may ask; an empty text is neither."""
    from handrail.mesh.https import why_unsafe  # brings TLS, which few processes need

    why = why_unsafe(text) if "://" in text else ""
    if why:
        raise ValueError(f'"{text}" can\'t be asked for keys: {why}')
    return text


def provider(text: str) -> str:
    """Parses the address of an identity provider; an empty text means no provider."""
    from handrail.mesh.https import why_unsafe

    why = why_unsafe(text) if text else ""
    if why:
        raise ValueError(f'"{text}" can\'t be asked: {why}')
    return text


def trace_link(text: str) -> str:
    """Parses the address of a trace, with its id as {trace}; an empty text means none."""
    if text and (not re.fullmatch(r"https?://[!-~]+", text) or "{trace}" not in text):
        raise ValueError(f'"{text}" is not an address such as https://traces.example.com/trace/{{trace}}')
    return text


def servers(text: str) -> tuple[str, ...]:
    """Parses the addresses of nats-servers; at least one."""
    found = listed(text)
    for each in found:
        if not re.fullmatch(r"(nats|tls|ws|wss)://\S+", each):
            raise ValueError(f'"{each}" is not an address such as nats://host:4222')
    if not found:
        raise ValueError("an address such as nats://host:4222 is needed")
    return found


def host_and_port(text: str) -> str:
    """Parses `host:port`."""
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{text}" is not an address such as 127.0.0.1:7070')
    return text


def optional(parse: Callable[[str], T]) -> Callable[[str], T | None]:
    """A parser that also takes an empty text, which is None."""
    return lambda text: parse(text) if text else None


def is_loopback(address: str) -> bool:
    """Whether `host:port` is on this machine, where nobody else can listen in."""
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def size(text: str) -> int:
    """Parses a size in bytes: `500MiB`, `20GiB`; -1 for `unlimited`."""
    if text == "unlimited":
        return -1
    found = _SIZE.fullmatch(text)
    if found is None:
        raise ValueError(f'"{text}" is not a size such as 500MiB or 20GiB, or unlimited')
    return int(found[1]) << _SHIFTS[found[2]]


def replicas(text: str) -> int | None:
    """Parses a number of replicas: 1 or 3; None if the text is empty."""
    return int(one_of("1", "3")(text)) if text else None


def file(text: str) -> Path | None:
    """Parses a path; None if the text is empty."""
    return Path(text).expanduser() if text else None


def files(text: str) -> tuple[Path, ...]:
    """Parses paths separated by commas."""
    return tuple(Path(part).expanduser() for part in listed(text))
