"""What was proven lately: the claims of tokens whose signature was verified, so that it is verified once."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from handrail.coordinator.api.tokens.header import Header
from handrail.coordinator.api.tokens.keys import Key
from handrail.coordinator.decide.caller import Caller

LIMIT = 4096
"""How many tokens are remembered. One takes about 2 KiB."""


@dataclass(frozen=True, slots=True)
class Proven:
    """A token that `key` has signed: its header, what it claims, and whom that names.

    It counts only as long as the key is among those that may sign.
    """

    header: Header
    key: Key
    claims: Mapping[str, object]
    caller: Caller


class ProvenTokens:
    """The tokens that were verified lately, by their hash. Times and revocations are judged at each call.

    What was refused is not kept: strangers can't fill the memory.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._found: OrderedDict[bytes, Proven] = OrderedDict()

    def find(self, token: str) -> Proven | None:
        """Returns what was proven for this token, or None."""
        digest = _digest(token)
        proven = self._found.get(digest)
        if proven is not None:
            self._found.move_to_end(digest)
        return proven

    def keep(self, token: str, proven: Proven) -> None:
        """Remembers a token, in place of the one that was not used for the longest time."""
        self._found[_digest(token)] = proven
        if len(self._found) > self._limit:
            self._found.popitem(last=False)

    def __len__(self) -> int:
        """How many tokens are remembered."""
        return len(self._found)


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
