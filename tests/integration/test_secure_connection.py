"""Connecting with TLS, client certificates and nkeys."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import nkeys
import pytest
import uvloop

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import BrokerPermission, BrokerUnavailable
from handrail.mesh.streams import FLOW, ensure_streams
from tests.conftest import Connect
from tests.support.authority import Authority
from tests.support.fake_broker import fake_broker
from tests.support.nats_server import NatsServer, running_server
from tests.support.waiting import until


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
    certificate, key = authority.certify("server", "localhost")
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


def test_a_connection_with_tls_publishes_and_reads_under_uvloop_too(tmp_path: Path, authority: Authority) -> None:
    """As workers and coordinators run."""
    seed, public_key = seed_file(tmp_path, "ledger")

    async def publish_and_read(server: NatsServer) -> list[bytes]:
        async with await NatsBus.connect(settings(server, authority, seed)) as bus:
            await ensure_streams(bus)
            await bus.publish("flow.refund.f.a", b"x" * 500_000)
            await bus.publish("flow.refund.f.b", b"")
            return [message.body for message in (await bus.direct_get(FLOW, multi_last=["flow.>"])).messages]

    with running_server(tmp_path / "nats", extra=configuration(authority, public_key)) as server:
        assert uvloop.run(publish_and_read(server)) == [b"x" * 500_000, b""]


async def test_what_is_sent_before_the_handshake_is_not_taken_for_the_servers_word(
    tmp_path: Path, authority: Authority, connect: Connect
) -> None:
    """Whoever is in between may add to the greeting, which is not encrypted, but not to what comes after it."""
    refusal = b"-ERR 'Authorization Violation'\r\n"

    async def in_between(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(await theirs.readline() + refusal)
        await asyncio.gather(passed_on(reader, ours), passed_on(theirs, writer))

    async def passed_on(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            target.write(data)
        target.close()

    with running_server(tmp_path / "nats", extra=with_password(authority)) as server:
        async with await asyncio.start_server(in_between, "127.0.0.1", 0) as proxy:
            port = proxy.sockets[0].getsockname()[1]
            bus = await connect(expecting_tls(port, scheme="nats", ca=authority.certificate))
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


PASSWORD = "s3cret-password"


def expecting_tls(port: int, *more: int, scheme: str, ca: Path | None) -> BusSettings:
    return BusSettings(
        servers=tuple(f"{scheme}://127.0.0.1:{each}" for each in (port, *more)),
        name="ledger",
        user="ledger",
        password=PASSWORD,
        tls_ca=ca,
        connect_timeout=timedelta(seconds=3),
    )


@pytest.mark.parametrize("scheme,has_ca", [("nats", True), ("tls", True), ("tls", False)])
async def test_a_server_without_tls_is_sent_nothing(authority: Authority, scheme: str, has_ca: bool) -> None:
    async with fake_broker() as fake:
        with pytest.raises(BrokerUnavailable, match="offers no TLS, which is required: nothing was sent to it"):
            await NatsBus.connect(expecting_tls(fake.port, scheme=scheme, ca=authority.certificate if has_ca else None))
        assert (fake.connections > 0, fake.received) == (True, b"")


async def test_whoever_meets_a_server_without_tls_gives_up_whenever_its_time_is_over(authority: Authority) -> None:
    """Time is up at another moment of an attempt for each: a cancellation may come between two of them."""
    async with fake_broker() as fake:
        wanted = expecting_tls(fake.port, scheme="tls", ca=authority.certificate)
        tries = (
            NatsBus.connect(replace(wanted, connect_timeout=timedelta(milliseconds=300 + 20 * number)))
            for number in range(40)
        )
        async with asyncio.timeout(30):
            ended = await asyncio.gather(*tries, return_exceptions=True)
    assert {type(each) for each in ended} == {BrokerUnavailable}


async def test_a_client_certificate_needs_tls_too(authority: Authority) -> None:
    certificate, key = authority.certify("ledger")
    async with fake_broker() as fake:
        with pytest.raises(BrokerUnavailable, match="offers no TLS"):
            await NatsBus.connect(
                replace(expecting_tls(fake.port, scheme="nats", ca=None), tls_cert=certificate, tls_key=key)
            )
        assert fake.received == b""


@pytest.mark.parametrize("scheme", ["nats", "tls"])
@pytest.mark.parametrize("mute", [False, True])
async def test_a_server_that_comes_back_without_tls_is_sent_nothing(
    tmp_path: Path, authority: Authority, connect: Connect, scheme: str, mute: bool
) -> None:
    with running_server(tmp_path / "nats", extra=with_password(authority)) as server:
        port = server.port
        bus = await connect(expecting_tls(port, scheme=scheme, ca=authority.certificate))
        assert (await bus.request_json("$JS.API.INFO"))["api"]["level"]
    async with fake_broker(port, mute=mute) as fake:
        await until(lambda: fake.connections >= (1 if mute else 3))
        bus.connection.send("flow", b"secret")
        await bus.connection.client.publish("flow", b"secret")
        await bus.close()
        assert fake.received == b""


async def test_another_server_of_the_pool_without_tls_is_sent_nothing(
    tmp_path: Path, authority: Authority, connect: Connect
) -> None:
    async with fake_broker() as fake:
        with running_server(tmp_path / "nats", extra=with_password(authority)) as server:
            settings = replace(
                expecting_tls(server.port, fake.port, scheme="nats", ca=authority.certificate),
                connect_timeout=timedelta(seconds=10),
            )
            bus = await connect(settings)
        await until(lambda: fake.connections > 1)
        await bus.close()
        assert fake.received == b""


def with_password(authority: Authority) -> str:
    certificate, key = authority.certify("server")
    return f"""
tls {{ cert_file: "{certificate}", key_file: "{key}" }}
accounts {{ APP {{ jetstream: enabled, users: [ {{ user: ledger, password: "{PASSWORD}" }} ] }} }}
"""
