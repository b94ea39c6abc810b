"""Which public keys may sign tokens, and which are left out or refused."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from handrail.coordinator.api.tokens.keys import ALGORITHMS, MAX_KEYS, read_key_set, read_pem
from tests.support.tokens import algorithm_of, jwk, key_set, pem, private_key

GOOD = private_key("ES256")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    SHORT = rsa.generate_private_key(65537, 1024)
OTHER_CURVE = ec.generate_private_key(ec.SECP384R1())


def public_pem(key: Ed448PrivateKey | ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_has_the_algorithm_of_its_type(algorithm: str) -> None:
    key = private_key(algorithm)
    assert [each.algorithm for each in read_pem(pem(key), ALGORITHMS)] == [algorithm]
    (read,) = read_key_set(key_set(jwk(key, "a")), ALGORITHMS)
    assert (read.algorithm, read.kid) == (algorithm_of(key), "a")


@pytest.mark.parametrize(
    "key, why",
    [
        (SHORT, "an RSA key must have 2048 to 8192 bits, not 1024"),
        (OTHER_CURVE, "an elliptic curve key must be on P-256, not on secp384r1"),
        (Ed448PrivateKey.generate(), "it must be an Ed25519, P-256 or RSA public key"),
    ],
)
def test_a_weak_or_unsupported_key_is_refused_with_the_reason(key: Any, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        read_pem(public_pem(key), ALGORITHMS)


def test_a_key_of_an_algorithm_that_is_not_allowed_is_refused() -> None:
    with pytest.raises(ValueError, match="ES256 is not among the allowed algorithms"):
        read_pem(pem(GOOD), ["EdDSA"])


def test_a_private_key_is_not_taken_for_a_public_one() -> None:
    private = GOOD.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with pytest.raises(ValueError, match="holds no public key"):
        read_pem(private, ALGORITHMS)


LEFT_OUT: dict[str, object] = {
    "for encryption": jwk(private_key("RS256"), "x", use="enc"),
    "for signing only": jwk(private_key("RS256"), "x", key_ops=["sign"]),
    "of another algorithm": jwk(private_key("RS256"), "x", alg="RS512"),
    "of an algorithm for something else": jwk(private_key("RS256"), "x", alg="RSA-OAEP"),
    "an id that is no text": {**jwk(private_key("ES256")), "kid": 7},
    "private": jwk(private_key("ES256"), "x", d="AAAA"),
    "shared": {"kty": "oct", "k": "c2VjcmV0", "kid": "x"},
    "on another curve": {**jwk(GOOD, "x"), "crv": "P-384"},
    "not on its curve": {**jwk(GOOD, "x"), "y": jwk(GOOD)["x"]},
    "cut off": {**jwk(GOOD, "x"), "y": "AA"},
    "of an unknown type": {"kty": "XYZ", "kid": "x"},
    "no key": 7,
    "a short key": {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
    "members of wrong types": {"kty": "RSA", "n": 5, "e": None},
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_key_of_the_set_that_signs_no_tokens_is_left_out(case: str) -> None:
    read = read_key_set(json.dumps({"keys": [LEFT_OUT[case], jwk(GOOD, "good")]}).encode(), ALGORITHMS)
    assert [key.kid for key in read] == ["good"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": []}', b"\xff", b"[" * 5000, key_set(*[jwk(GOOD)] * (MAX_KEYS + 1))],
)
def test_what_is_no_key_set_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"Key Set|keys|no key"):
        read_key_set(data, ALGORITHMS)
