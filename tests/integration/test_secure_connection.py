"""Connecting with TLS, client certificates and nkeys."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import nkeys
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable
from tests.conftest import Connect
from tests.support.nats_server import NatsServer, running_server

NOW = datetime.now(UTC)


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.certificate = self._issue("authority", self._key.public_key(), is_authority=True)

    def certify(self, name: str) -> tuple[Path, Path]:
        """A certificate and its key, as files."""
        key = ec.generate_private_key(ec.SECP256R1())
        path = self._folder / f"{name}.key"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return self._issue(name, key.public_key()), path

    def _issue(self, name: str, key: ec.EllipticCurvePublicKey, *, is_authority: bool = False) -> Path:
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(days=1))
            .not_valid_after(NOW + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        path = self._folder / f"{name}.pem"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return path


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def seed_file(folder: Path, name: str) -> tuple[Path, str]:
    """A file with a user's seed, and the public key that the broker knows the user by."""
    pair = nkeys.from_seed(nkeys.encode_seed(name.encode().ljust(32, b"."), nkeys.PREFIX_BYTE_USER))
    path = folder / f"{name}.nk"
    path.write_bytes(bytes(pair.seed))
    return path, pair.public_key.decode()


def configuration(authority: Authority, user: str) -> str:
    certificate, key = authority.certify("server")
    return f"""
tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority.certificate}", verify: true, timeout: 5 }}
accounts {{ APP {{ jetstream: enabled, users: [ {{ nkey: {user} }} ] }} }}
"""


def settings(server: NatsServer, authority: Authority, seed: Path) -> BusSettings:
    certificate, key = authority.certify("ledger")
    return replace(
        server.settings("ledger"),
        servers=(f"tls://127.0.0.1:{server.port}",),
        nkey_seed_file=seed,
        tls_ca=authority.certificate,
        tls_cert=certificate,
        tls_key=key,
        connect_timeout=timedelta(seconds=2),
    )


async def test_an_agent_connects_with_its_certificate_and_its_nkey(
    tmp_path: Path, authority: Authority, connect: Connect
) -> None:
    seed, public_key = seed_file(tmp_path, "ledger")
    with running_server(tmp_path / "nats", extra=configuration(authority, public_key)) as server:
        bus = await connect(settings(server, authority, seed))
        assert (await bus.request_json("$JS.API.INFO"))["api"]["level"]
        await bus.close()


async def test_without_a_certificate_or_with_another_nkey_there_is_no_connection(
    tmp_path: Path, authority: Authority
) -> None:
    seed, public_key = seed_file(tmp_path, "ledger")
    other, _ = seed_file(tmp_path, "other")
    with running_server(tmp_path / "nats", extra=configuration(authority, public_key)) as server:
        good = settings(server, authority, seed)
        # What is left of the refusal depends on when the server closes: its alert, or a broken pipe.
        with pytest.raises((BrokerUnavailable, BrokerPermission)):
            await NatsBus.connect(replace(good, tls_cert=None, tls_key=None))
        with pytest.raises(BrokerPermission):
            await NatsBus.connect(replace(good, nkey_seed_file=other))


async def test_a_file_that_is_not_there_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for settings in (
        replace(nats_server.settings(), tls_ca=missing),
        replace(nats_server.settings(), nkey_seed_file=missing),
    ):
        with pytest.raises(BrokerPermission, match=r"missing can't be used: No such file"):
            await NatsBus.connect(settings)


async def test_a_file_that_is_no_certificate_is_named(nats_server: NatsServer, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("no certificate")
    with pytest.raises(BrokerPermission, match=r"garbage\.pem can't be used"):
        await NatsBus.connect(replace(nats_server.settings(), tls_ca=garbage))


async def test_an_address_that_is_none_is_an_error_of_ours() -> None:
    for address in ("", "ftp://127.0.0.1:1", "nats://127.0.0.1:not-a-port"):
        with pytest.raises(BrokerUnavailable):
            await NatsBus.connect(BusSettings(servers=(address,), name="x", connect_timeout=timedelta(seconds=1)))
