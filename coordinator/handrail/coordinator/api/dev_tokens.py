"""Keys and tokens for development and tests; a real installation uses its own identity provider."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from handrail.coordinator.api.claims import AUDIENCE, GRANTS, ISSUER


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The paths of a key pair; only the owner can read the private key."""

    private: Path
    public: Path


def ensure_keys(folder: Path) -> KeyFiles:
    """Returns the key pair of a folder and creates it on the first call; raises OSError if it can't be written."""
    files = KeyFiles(folder / "jwt-private.pem", folder / "jwt-public.pem")
    if not files.private.exists():
        folder.mkdir(parents=True, exist_ok=True)
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        descriptor = os.open(files.private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(private)
    # Derived from the private key each time: a run that ended between the two files leaves no incomplete pair.
    public = _private_key(files.private).public_key()
    files.public.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return files


def mint(
    private: Path,
    subject: str,
    *,
    roles: Iterable[str] = (),
    grants: Iterable[str] | None = None,
    agent: str = "",
    lifetime: timedelta = timedelta(hours=12),
) -> str:
    """Signs a token for `subject`; raises ValueError if the file holds no Ed25519 private key.

    `grants` are written as the claim `handrail` has them; None for a token without that claim.
    """
    now = datetime.now(UTC)
    claims: dict[str, object] = {
        "sub": subject,
        "roles": sorted(roles),
        "iss": ISSUER,
        "aud": AUDIENCE,
        "iat": now,
        "nbf": now,
        "exp": now + lifetime,
        "jti": secrets.token_hex(16),
    }
    if grants is not None:
        claims[GRANTS] = sorted(grants)
    if agent:
        claims["agent"] = agent
    return jwt.encode(claims, _private_key(private), algorithm="EdDSA")


def _private_key(path: Path) -> Ed25519PrivateKey:
    key = load_pem_private_key(path.read_bytes(), password=None)
    if not isinstance(key, Ed25519PrivateKey):
        raise ValueError(f"{path} holds no Ed25519 private key")
    return key
