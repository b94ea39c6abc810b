"""Keys of every kind and tokens signed with them, good ones and hostile ones."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Private = Ed25519PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def private_key(algorithm: str) -> Private:
    """A new key for EdDSA, ES256 or RS256."""
    match algorithm:
        case "EdDSA":
            return Ed25519PrivateKey.generate()
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return rsa.generate_private_key(65537, 2048)


def algorithm_of(private: Private) -> str:
    """The algorithm of a key."""
    if isinstance(private, Ed25519PrivateKey):
        return "EdDSA"
    return "ES256" if isinstance(private, ec.EllipticCurvePrivateKey) else "RS256"


def pem(private: Private) -> bytes:
    """The public half in PEM form."""
    return private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def jwk(private: Private, kid: str = "", **more: object) -> dict[str, object]:
    """The public half as a member of a key set."""
    algorithm = jwt.get_algorithm_by_name(algorithm_of(private))
    plain = algorithm.to_jwk(private.public_key(), as_dict=True)
    return {**plain, **({"kid": kid} if kid else {}), **more}


def key_set(*keys: Mapping[str, object]) -> bytes:
    """A key set."""
    return json.dumps({"keys": keys}).encode()


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; None leaves one out."""
    now = datetime.now(UTC)
    good = {
        "sub": "olga",
        "roles": ["operator"],
        "iss": "handrail",
        "aud": "handrail",
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(hours=1)).timestamp()),
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(private: Private, header: Mapping[str, object] | None = None, **changes: Any) -> str:
    """A token with these claims, and these members in its header beside `alg` and `typ`."""
    return jwt.encode(claims(**changes), private, algorithm=algorithm_of(private), headers=dict(header or {}))


def part(content: object) -> str:
    """A part of a token: JSON in base64url."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@dataclass(frozen=True)
class Forgery:
    """A token that nobody may accept, and what it tries."""

    trick: str
    token: str


def forgeries(private: Private, **changes: Any) -> list[Forgery]:
    """Tokens that pretend to be signed with a key although their maker knows only its public half."""
    algorithm, body = algorithm_of(private), part(claims(**changes))
    own = Ed25519PrivateKey.generate()
    own_jwk = jwk(own)
    head, _, tail = signed(private, **changes).split(".")

    def shared_secret(secret: bytes) -> str:
        message = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{body}"
        mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256).sign(message.encode(), secret)
        return f"{message}.{base64.urlsafe_b64encode(mac).decode().rstrip('=')}"

    def by_own_key(**header: object) -> str:
        return signed(own, header, **changes)

    return [
        Forgery("alg none", f"{part({'alg': 'none', 'typ': 'JWT'})}.{body}."),
        Forgery("alg NoNe", f"{part({'alg': 'NoNe', 'typ': 'JWT'})}.{body}."),
        Forgery("no alg", f"{part({'typ': 'JWT'})}.{body}."),
        Forgery("alg that is a list", f"{part({'alg': ['none'], 'typ': 'JWT'})}.{body}."),
        Forgery("the public key as a shared secret", shared_secret(pem(private))),
        Forgery("the key set's entry as a shared secret", shared_secret(json.dumps(jwk(private)).encode())),
        Forgery("an empty shared secret", shared_secret(b"")),
        Forgery("a key in the header (jwk)", by_own_key(jwk=own_jwk)),
        Forgery("an address of keys in the header (jku)", by_own_key(jku="http://127.0.0.1:9/keys")),
        Forgery("an address of a certificate in the header (x5u)", by_own_key(x5u="http://127.0.0.1:9/cert")),
        Forgery("a certificate in the header (x5c)", by_own_key(x5c=["MIIB"])),
        Forgery("kid that is a path", by_own_key(kid="../../../../dev/null")),
        Forgery("kid that is a statement", by_own_key(kid="x' UNION SELECT 'key")),
        Forgery("kid that is an address", by_own_key(kid="file:///etc/passwd")),
        Forgery("kid that is a list", f"{part({'alg': algorithm, 'kid': ['a']})}.{body}.{tail}"),
        Forgery("a critical extension", signed(private, {"crit": ["exp"], "exp": 0}, **changes)),
        Forgery("an unencoded body", f"{part({'alg': algorithm, 'b64': False, 'crit': ['b64']})}..{tail}"),
        Forgery("a logout token", signed(private, {"typ": "logout+jwt"}, **changes)),
        Forgery("other claims under the same signature", f"{head}.{part(claims(sub='root'))}.{tail}"),
        Forgery("the signature cut off", f"{head}.{body}."),
        Forgery("a signature of zeros", f"{head}.{body}.{'A' * 86}"),
        Forgery("too long", signed(private, **{**changes, "filler": "x" * 20_000})),
        Forgery("headers that nest", f"{base64.urlsafe_b64encode(b'[' * 3000).decode().rstrip('=')}.{body}.{tail}"),
    ]
