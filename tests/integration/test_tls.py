"""TLS of the gRPC server and of the command: what crosses a network is encrypted; the token says who calls."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2

from handrail.mesh.bus import NatsBus
from handrail.mesh.tls import Certificates, TlsFiles
from handrail.v1.flow_service_pb2 import ListFlowsRequest
from tests.support.api import Api, bearer, refused, running_api
from tests.support.authority import Authority
from tests.support.dev import handrail, handrail_process
from tests.support.fake_broker import fake_broker
from tests.support.waiting import eventually


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "certificates")


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    certificate, key = authority.certify("server", "localhost")
    return TlsFiles(certificate=certificate, key=key)


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path, files: TlsFiles) -> AsyncIterator[Api]:
    """A coordinator with TLS."""
    async with running_api(bus, tmp_path, tls=files) as api:
        yield api


async def flow_list(api: Api, folder: Path, *flags: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`handrail flow list` in vera's name."""
    token = folder / "token"
    token.write_text(api.token("vera"))
    given = ("flow", "list", "--scan", "--address", api.address, "--token-file", token, "--timeout", "5s", *flags)
    return await asyncio.to_thread(handrail_process, *given, env=env)


async def presented(api: Api) -> int:
    """The serial number of the certificate that a new connection is shown."""
    host, _, port = api.address.rpartition(":")
    pem = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    return x509.load_pem_x509_certificate(pem.encode()).serial_number


def serial(certificate: Path) -> int:
    return x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number


def as_is(data: bytes) -> bytes:
    return data


def secure(api: Api, authority: Authority, *pair: bytes) -> grpc.aio.Channel:
    key, certificate = pair or (None, None)
    credentials = grpc.ssl_channel_credentials(authority.certificate.read_bytes(), key, certificate)
    return grpc.aio.secure_channel(api.address, credentials)


def check(channel: grpc.aio.Channel) -> Any:
    rpc: Any = channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
        response_deserializer=health_pb2.HealthCheckResponse.FromString,
    )
    return rpc(health_pb2.HealthCheckRequest(), timeout=10)


async def test_the_command_calls_with_tls(api: Api, tmp_path: Path, authority: Authority) -> None:
    done = await flow_list(api, tmp_path, "--ca", authority.certificate)
    assert (done.returncode, done.stderr) == (0, "")
    by_environment = await flow_list(api, tmp_path, HANDRAIL_CA=str(authority.certificate))
    assert by_environment.returncode == 0


async def test_another_authority_or_none_is_not_trusted(api: Api, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other")
    for flags in (("--ca", other.certificate), ("--tls", "on"), ()):
        done = await flow_list(api, tmp_path, *flags)
        assert (flags, done.returncode) == (flags, 3)
        assert "Traceback" not in done.stderr


async def test_the_health_of_a_coordinator_with_tls_is_probed(api: Api, authority: Authority) -> None:
    probe = ("health", "coordinator", "--address", api.address, "--timeout", "5s")
    assert (await asyncio.to_thread(handrail_process, *probe, "--ca", authority.certificate)).returncode == 0
    assert (await asyncio.to_thread(handrail_process, *probe)).returncode == 3


async def test_a_client_certificate_opens_the_connection_and_names_nobody(
    bus: NatsBus, tmp_path: Path, authority: Authority, files: TlsFiles
) -> None:
    certificate, key = authority.certify("olga")
    strict = TlsFiles(certificate=files.certificate, key=files.key, client_ca=authority.certificate)
    async with running_api(bus, tmp_path, tls=strict) as api:
        without = await flow_list(api, tmp_path, "--ca", authority.certificate)
        assert without.returncode == 3
        stranger_certificate, stranger_key = Authority(tmp_path / "other").certify("olga")
        stranger = ("--client-cert", stranger_certificate, "--client-key", stranger_key)
        assert (await flow_list(api, tmp_path, "--ca", authority.certificate, *stranger)).returncode == 3
        known = ("--client-cert", certificate, "--client-key", key)
        assert (await flow_list(api, tmp_path, "--ca", authority.certificate, *known)).returncode == 0
        async with secure(api, authority, key.read_bytes(), certificate.read_bytes()) as channel:
            rpc: Any = channel.unary_unary(
                "/handrail.v1.FlowService/ListFlows", request_serializer=as_is, response_deserializer=as_is
            )
            assert (await refused(rpc(b""))).code is grpc.StatusCode.UNAUTHENTICATED
            request = ListFlowsRequest(scan=True).SerializeToString()
            assert await rpc(request, metadata=bearer(api.token("vera"))) is not None


async def test_a_certificate_that_is_replaced_is_served_to_new_connections(
    api: Api, authority: Authority, files: TlsFiles
) -> None:
    first = serial(files.certificate)
    assert await presented(api) == first
    async with secure(api, authority) as channel:
        assert (await check(channel)).status == health_pb2.HealthCheckResponse.SERVING
        authority.certify("server", "localhost")
        assert serial(files.certificate) != first
        assert await presented(api) == serial(files.certificate)
        assert (await check(channel)).status == health_pb2.HealthCheckResponse.SERVING


async def test_files_that_do_not_fit_change_nothing_until_they_do(
    api: Api, authority: Authority, files: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    first, key = serial(files.certificate), files.key.read_bytes()
    authority.certify("server", "localhost")
    new_key = files.key.read_bytes()
    files.key.write_bytes(key)
    assert await presented(api) == first
    assert "the key does not belong to the certificate" in caplog.text
    files.key.unlink()
    assert await presented(api) == first
    files.key.write_bytes(new_key)
    assert await eventually(lambda: presented(api), lambda shown: shown == serial(files.certificate))


async def test_files_that_can_not_be_used_are_named_at_the_start(authority: Authority, files: TlsFiles) -> None:
    _, other_key = authority.certify("other")
    for wrong, why in (
        (TlsFiles(certificate=files.certificate, key=other_key), "does not belong to the certificate"),
        (TlsFiles(certificate=files.certificate, key=Path("/nowhere.key")), r"/nowhere\.key can't be read: No such"),
        (TlsFiles(certificate=files.key, key=files.key), "is not PEM"),
    ):
        with pytest.raises(ValueError, match=why):
            Certificates(wrong)


def test_a_coordinator_needs_the_key_of_its_certificate(files: TlsFiles, tmp_path: Path) -> None:
    done = handrail("coordinator", "--jwt-public-keys", tmp_path / "k.pem", "--tls-cert", files.certificate)
    assert (done.returncode, done.stderr) == (2, "handrail: TLS needs both --tls-cert and --tls-key\n")


@pytest.mark.parametrize(
    "flags,why",
    [
        ((), "no token is sent to 0.0.0.0:{port} without TLS"),
        (("--tls", "off", "--ca", "x"), "--tls off forbids it"),
        (("--client-cert", "x"), "needs both --client-cert and --client-key"),
        (("--ca", "/nowhere.pem"), "/nowhere.pem can't be read: No such file or directory"),
    ],
)
async def test_a_token_is_not_sent_to_another_machine_without_tls(
    tmp_path: Path, flags: tuple[str, ...], why: str
) -> None:
    token = tmp_path / "token"
    token.write_text("secret")
    async with fake_broker(host="0.0.0.0", mute=True) as fake:
        given: tuple[str | Path, ...]
        given = ("flow", "list", "--address", f"0.0.0.0:{fake.port}", "--token-file", token, "--timeout", "1s", *flags)
        done = await asyncio.to_thread(handrail_process, *given)
        assert (done.returncode, fake.received) == (2, b"")
        assert why.format(port=fake.port) in done.stderr


async def test_plain_text_to_another_machine_takes_an_order_and_a_proxy_gets_nothing_on_this_one(
    bus: NatsBus, tmp_path: Path
) -> None:
    async with running_api(bus, tmp_path) as api, fake_broker(mute=True) as proxy:
        named = dict.fromkeys(("http_proxy", "grpc_proxy", "https_proxy"), f"http://127.0.0.1:{proxy.port}")
        assert (await flow_list(api, tmp_path, **named)).returncode == 0
        assert (await flow_list(api, tmp_path, "--tls", "off")).returncode == 0
        assert proxy.connections == 0
