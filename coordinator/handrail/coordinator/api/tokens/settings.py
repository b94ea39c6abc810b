"""Which tokens a coordinator accepts, as its settings say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path

from handrail.coordinator.api.tokens.key_address import KeyAddress
from handrail.coordinator.api.tokens.key_ring import KeyRing
from handrail.coordinator.api.tokens.keys import ALGORITHMS, Key, read_key_set, read_pem
from handrail.coordinator.api.tokens.revocations import Revocations, read_revocations
from handrail.coordinator.api.tokens.rules import Rules
from handrail.mesh.reread_file import RereadFile, Unreadable


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSettings:
    """`key_set` is a file or an https address, empty for none; `key_set_ca` is that address's certificate authority.

    The key set is fetched again after `refresh`, and at once for an unknown key, but at most once per `cooldown`; keys
    that can't be fetched for `stale_after` don't count. `revocations` is a file (see `revocations`).
    """

    rules: Rules = field(default_factory=Rules)
    algorithms: tuple[str, ...] = ALGORITHMS
    key_set: str = ""
    key_set_ca: Path | None = None
    refresh: timedelta = timedelta(minutes=5)
    stale_after: timedelta = timedelta(hours=1)
    cooldown: timedelta = timedelta(seconds=10)
    revocations: Path | None = None

    def key_ring(self, pem_files: Sequence[Path]) -> KeyRing:
        """Returns the keys of these files and of the key set; raises ValueError if a file is unreadable or has none."""
        files = [RereadFile(path, partial(read_pem, algorithms=self.algorithms)) for path in pem_files]
        address = None
        if "://" in self.key_set:
            address = KeyAddress(
                self.key_set,
                self.algorithms,
                ca=self.key_set_ca,
                refresh=self.refresh,
                stale_after=self.stale_after,
                cooldown=self.cooldown,
            )
        elif self.key_set:
            files.append(RereadFile(Path(self.key_set).expanduser(), partial(read_key_set, algorithms=self.algorithms)))
        if not files and address is None:
            raise ValueError("at least one public key is needed to verify tokens")
        for file in files:
            _once(file)
        return KeyRing(files, address)

    def revocation_file(self) -> RereadFile[Revocations] | None:
        """Returns the file of revocations, None if there is none; raises ValueError if it can't be read."""
        if self.revocations is None:
            return None
        file = RereadFile(self.revocations, read_revocations)
        _once(file)
        return file


def _once(file: RereadFile[tuple[Key, ...]] | RereadFile[Revocations]) -> None:
    """Reads a file at the start, where a mistake ends the process."""
    try:
        file.value()
    except Unreadable as error:
        raise ValueError(str(error)) from None
