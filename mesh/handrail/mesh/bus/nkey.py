"""Nkeys: key pairs with which users prove who they are to the broker, without telling it a secret."""

from __future__ import annotations

import os
from pathlib import Path

import nkeys

_SEED_BYTES = 32


def new_seed(random: bytes | None = None) -> str:
    """Returns the seed of a user's new nkey (`SU…`), from 32 random bytes or from those given."""
    seed: bytes = nkeys.encode_seed(random or os.urandom(_SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def read_seed(path: Path) -> str:
    """Returns the seed in a file. Raises OSError if it can't be read, and ValueError if it holds no seed."""
    seed = path.read_text("utf-8").strip()
    public_key(seed)
    return seed


def public_key(seed: str) -> str:
    """Returns the public key of a seed (`U…`), as the broker's configuration has it. Raises ValueError for any other
    text."""
    try:
        key: str = nkeys.from_seed(seed.encode()).public_key.decode()
    except (nkeys.NkeysError, ValueError):
        key = ""
    if not key.startswith("U"):
        raise ValueError("it holds no seed of a user's nkey (SU…)")
    return key
