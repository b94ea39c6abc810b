"""A certificate authority in a folder, for small installations: it issues certificates to servers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from handrail.cli.private_files import write_private

LIFETIME = timedelta(days=397)
"""The longest lifetime of a server's certificate that common clients accept (CA/Browser Forum, until March 2026)."""

RENEW_BEFORE = timedelta(days=60)
"""A certificate that ends sooner is replaced."""

_LIFETIME_OF_THE_AUTHORITY = timedelta(days=3650)
_CLOCK_SKEW = timedelta(minutes=10)
_LONGEST_COMMON_NAME = 64
_CERTIFICATE, _KEY = "tls.pem", "tls.key"
_SIGNS_CERTIFICATES = x509.KeyUsage(
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    key_cert_sign=True,
    crl_sign=True,
    encipher_only=False,
    decipher_only=False,
)
"""Without it, Python 3.13 and newer refuse the authority."""


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def ensure_certificates(folder: Path, names: list[str], *, now: datetime) -> list[Path]:
    """Issues a certificate to each name, and returns the new ones: `<folder>/<name>/tls.pem`, with `tls.key` beside it.

    A certificate is valid for the name, which may be an address, for `localhost` and for 127.0.0.1. One that fits its
    key and is valid for long enough stays. The authority is created first: its certificate `<folder>/ca.pem`, and its
    key `<folder>/authority/ca.key`, which nobody else needs. Raises OSError, FileNotFoundError if only one of the two
    is there, or ValueError if a file is not what its name says.
    """
    authority = _ensure_authority(folder, now)
    issued = []
    for name in names:
        path = folder / name / _CERTIFICATE
        if not _lasts(path, authority, now):
            _issue(path, name, authority, now)
            issued.append(path)
    return issued


def _ensure_authority(folder: Path, now: datetime) -> _Authority:
    certificate_file, key_file = folder / "ca.pem", folder / "authority" / "ca.key"
    if key_file.exists() or certificate_file.exists():
        # A new authority would make everybody's certificates worthless: both files, or neither.
        key = serialization.load_pem_private_key(key_file.read_bytes(), password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError(f"{key_file} is not a key on an elliptic curve")
        return _Authority(x509.load_pem_x509_certificate(certificate_file.read_bytes()), key)
    key = ec.generate_private_key(ec.SECP256R1())
    name = _named("Handrail authority")
    certificate = (
        _builder(now, _LIFETIME_OF_THE_AUTHORITY)
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(key_file, _pem(key))
    _write(certificate_file, certificate)
    return _Authority(certificate, key)


def _lasts(path: Path, authority: _Authority, now: datetime) -> bool:
    """Whether a certificate is there, is of this authority, and is valid for long enough."""
    if not path.exists() or not path.with_name(_KEY).exists():
        return False
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    key = serialization.load_pem_private_key(path.with_name(_KEY).read_bytes(), password=None)
    if key.public_key() != certificate.public_key():
        return False
    try:
        certificate.verify_directly_issued_by(authority.certificate)
    except (InvalidSignature, TypeError, ValueError):
        return False
    return certificate.not_valid_after_utc - now > RENEW_BEFORE


def _issue(path: Path, name: str, authority: _Authority, now: datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    reachable = dict.fromkeys([_reachable(name), x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    certificate = (
        _builder(now, LIFETIME)
        .subject_name(_named(name))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([*reachable]), critical=False)
        # The servers of a cluster are each other's clients.
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    write_private(path.with_name(_KEY), _pem(key))
    _write(path, certificate)


def _builder(now: datetime, lifetime: timedelta) -> x509.CertificateBuilder:
    builder = x509.CertificateBuilder().serial_number(x509.random_serial_number())
    return builder.not_valid_before(now - _CLOCK_SKEW).not_valid_after(now + lifetime)


def _named(name: str) -> x509.Name:
    """The name of a subject; clients look at the alternative names. A common name has at most 64 characters."""
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:_LONGEST_COMMON_NAME])])


def _reachable(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    private = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, private, serialization.NoEncryption()).decode()


def _write(path: Path, certificate: x509.Certificate) -> None:
    """Certificates are public: everybody may read them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
