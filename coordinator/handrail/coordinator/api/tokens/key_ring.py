"""All keys that may sign tokens: those of files and those at an address."""

from __future__ import annotations

from collections.abc import Sequence

from handrail.coordinator.api.tokens.header import Header
from handrail.coordinator.api.tokens.key_address import KeyAddress, KeysUnavailable
from handrail.coordinator.api.tokens.keys import Key, candidates
from handrail.mesh.reread_file import RereadFile, Unreadable


class KeyRing:
    """Several keys, so that keys can be rotated without a gap. A file that can't be read adds none."""

    def __init__(self, files: Sequence[RereadFile[tuple[Key, ...]]], address: KeyAddress | None = None) -> None:
        self._files = tuple(files)
        self._address = address

    @property
    def generation(self) -> int:
        """Grows whenever keys have changed."""
        return sum(file.generation for file in self._files) + (self._address.generation if self._address else 0)

    async def prepare(self) -> None:
        """Fetches the keys at the address, if there is one; what is wrong with it is in the log."""
        if self._address is not None:
            try:
                await self._address.keys()
            except KeysUnavailable:
                return

    async def for_header(self, header: Header) -> list[Key]:
        """Returns the keys that may have signed a token; asks the address again if it names an unknown one.

        Raises KeysUnavailable if no key is found, and some could not be read.
        """
        keys, missing = self._in_files(), ""
        if self._address is not None:
            try:
                keys += await self._address.keys()
                if header.kid and all(key.kid != header.kid for key in keys):
                    keys = self._in_files() + await self._address.keys_anew()
            except KeysUnavailable as error:
                missing = str(error)
        found = candidates(keys, algorithm=header.algorithm, kid=header.kid)
        if not found and (missing or not keys):
            raise KeysUnavailable(missing or "no file holds a key that may be used")
        return found

    def _in_files(self) -> tuple[Key, ...]:
        keys: list[Key] = []
        for file in self._files:
            try:
                keys += file.value()
            except Unreadable:
                # It is in the log; the keys of the other files count.
                continue
        return tuple(keys)
