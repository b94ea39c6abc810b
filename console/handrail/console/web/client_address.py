"""Whose request it is: the address that connected, or the one for which a trusted proxy did. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

from starlette.datastructures import Headers

from handrail.mesh.setting_parsers import Network

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_PAIR = re.compile(rf'[ \t]*({_TOKEN})=({_TOKEN}|"(?:[^"\\]|\\.)*")[ \t]*')
_ELEMENT = re.compile(rf"{_PAIR.pattern}(?:;{_PAIR.pattern})*(?:,|$)")
_NODE = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?|([0-9.]+)(?::[0-9]{1,5})?|([0-9A-Fa-f:.]+)")


def client_address(peer: str, headers: Headers, trusted: Sequence[Network]) -> str:
    """The address of a client, whose request came from the address `peer`.

    Anybody can send the headers. So they count only if a trusted proxy sent them, and of what they name the last
    address that is not a trusted proxy's: what stands before it is the client's word. If they say it in no way that
    can be read, or `Forwarded` and `X-Forwarded-For` differ, the request counts as the proxy's own.
    """
    connected = _address(peer)
    if connected is None or not _is_trusted(connected, trusted):
        return peer
    chains = (_forwarded(headers), [each.strip() for each in _joined(headers, "x-forwarded-for").split(",")])
    named = {_last_stranger(chain, trusted) for chain in chains if chain != [""]}
    found = named.pop() if len(named) == 1 else None
    return peer if found is None else str(found)


def _last_stranger(chain: Sequence[str], trusted: Sequence[Network]) -> IPv4Address | IPv6Address | None:
    """The last address that no trusted proxy has; None if something that is no address follows it."""
    for text in reversed(chain):
        address = _address(text)
        if address is None or not _is_trusted(address, trusted):
            return address
    return None


def _forwarded(headers: Headers) -> list[str]:
    """What each element of `Forwarded` (RFC 7239) is for, the nearest last; one empty text without the header."""
    text, position, found = _joined(headers, "forwarded"), 0, []
    while position < len(text):
        element = _ELEMENT.match(text, position)
        if element is None:
            return ["malformed"]
        pairs = [(name.lower(), value) for name, value in _PAIR.findall(element[0])]
        nodes = [value for name, value in pairs if name == "for"]
        found.append(nodes[0].strip('"') if len(nodes) == 1 else "malformed")
        position = element.end()
    return found or [""]


def _joined(headers: Headers, name: str) -> str:
    return ",".join(headers.getlist(name)).strip()


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """The address in the name of a node, which may have a port; None for every other name."""
    node = _NODE.fullmatch(text)
    if node is None:
        return None
    try:
        address = ip_address(next(each for each in node.groups() if each))
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _is_trusted(address: IPv4Address | IPv6Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)
