"""The authority in a folder: certificates that verify, are renewed in time, and leave its key to itself."""

from __future__ import annotations

import ssl
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from handrail.cli.authority import LIFETIME, RENEW_BEFORE, ensure_certificates
from handrail.cli.exit_codes import Exit
from handrail.cli.main import main

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_each_server_gets_a_certificate_of_the_authority(tmp_path: Path) -> None:
    issued = ensure_certificates(tmp_path, ["nats1", "coordinator1.example.com"], now=NOW)
    assert issued == [tmp_path / "nats1" / "tls.pem", tmp_path / "coordinator1.example.com" / "tls.pem"]
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    for path in issued:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert path.parent.name in names.get_values_for_type(x509.DNSName)
        ssl.create_default_context().load_cert_chain(path, path.with_name("tls.key"))


def test_keys_are_for_their_owner_alone(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["nats1"], now=NOW)
    keys = sorted(tmp_path.glob("**/*.key"))
    assert [path.relative_to(tmp_path).as_posix() for path in keys] == ["authority/ca.key", "nats1/tls.key"]
    assert {path.stat().st_mode & 0o777 for path in keys} == {0o600}


def test_what_lasts_stays_and_what_ends_soon_is_renewed(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["nats1"], now=NOW)
    assert ensure_certificates(tmp_path, ["nats1"], now=NOW + LIFETIME - RENEW_BEFORE - timedelta(days=1)) == []
    assert ensure_certificates(tmp_path, ["nats1"], now=NOW + LIFETIME - RENEW_BEFORE) == [tmp_path / "nats1/tls.pem"]


def test_a_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    ensure_certificates(tmp_path / "a", ["nats1"], now=NOW)
    ensure_certificates(tmp_path / "b", ["nats1"], now=NOW)
    (tmp_path / "a/nats1/tls.pem").replace(tmp_path / "b/nats1/tls.pem")
    assert ensure_certificates(tmp_path / "b", ["nats1"], now=NOW) == [tmp_path / "b/nats1/tls.pem"]


@pytest.mark.parametrize("name", ["../x", "a b", "authority", "-x", ""])
def test_a_name_that_is_no_host_is_refused(tmp_path: Path, name: str) -> None:
    assert main(["certificates", str(tmp_path), "--", name]) == Exit.USAGE
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_certificate_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "nats1").mkdir()
    for name in ("tls.pem", "tls.key"):
        (tmp_path / "nats1" / name).write_text("nonsense")
    assert main(["certificates", str(tmp_path), "nats1"]) == 1
    assert "something else than certificates" in capsys.readouterr().err


def test_python_takes_the_authority_as_strictly_as_newer_releases_do(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["localhost"], now=datetime.now(UTC))
    client = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(tmp_path / "localhost/tls.pem", tmp_path / "localhost/tls.key")
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    asking = client.wrap_bio(to_client, to_server, server_hostname="localhost")
    answering = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (asking, answering, asking, answering):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    assert asking.getpeercert()


def test_an_authority_that_lost_its_key_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensure_certificates(tmp_path, ["nats1"], now=NOW)
    before = (tmp_path / "ca.pem").read_bytes()
    (tmp_path / "authority/ca.key").unlink()
    assert main(["certificates", str(tmp_path), "nats2"]) == 1
    assert "ca.key: No such file" in capsys.readouterr().err
    assert (tmp_path / "ca.pem").read_bytes() == before


def test_a_certificate_without_its_key_is_replaced(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, ["nats1"], now=NOW)
    (tmp_path / "nats1/tls.key").unlink()
    assert ensure_certificates(tmp_path, ["nats1"], now=NOW) == [tmp_path / "nats1/tls.pem"]


def test_an_authority_whose_key_has_a_password_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ensure_certificates(tmp_path, ["nats1"], now=NOW)
    path = tmp_path / "authority/ca.key"
    key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    locked = serialization.BestAvailableEncryption(b"secret")
    pkcs8 = serialization.PrivateFormat.PKCS8
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, locked))
    assert main(["certificates", str(tmp_path), "nats2"]) == 1
    assert "something else than certificates and keys" in capsys.readouterr().err


def test_addresses_and_long_names_get_certificates_too(tmp_path: Path) -> None:
    names = ["10.0.0.7", "::1", ".".join(["long" * 8] * 3), "127.0.0.1"]
    for path in ensure_certificates(tmp_path, names, now=NOW):
        found = x509.load_pem_x509_certificate(path.read_bytes()).extensions
        alternatives = found.get_extension_for_class(x509.SubjectAlternativeName).value
        reachable = [str(each) for each in alternatives.get_values_for_type(x509.IPAddress)]
        assert path.parent.name in reachable + alternatives.get_values_for_type(x509.DNSName)
