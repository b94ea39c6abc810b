"""P6: on the broker, each kind of user can do what a table written by hand says, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from handrail.mesh.permissions import ADMIN, SYSTEM_ADMIN, Reader, users
from tests.support.accounts import guarded_server, seed
from tests.support.nats_server import NatsServer
from tests.support.raw_client import raw_client
from tests.support.rights import TABLE, covered, matched, subjects, template

TRIED = tuple(dict.fromkeys(subjects()))
_AT_ONCE = 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A broker without streams: what is published reaches whoever listens in their account, and nothing is stored."""
    folder = tmp_path_factory.mktemp("rights")
    with guarded_server(folder, template(), readers=[Reader("analytics", ("refund",))]) as running:
        yield running


def parts() -> Iterator[tuple[str, ...]]:
    """The subjects in parts: the broker drops who does not read in time."""
    for begin in range(0, len(TRIED), _AT_ONCE):
        yield TRIED[begin : begin + _AT_ONCE]


@pytest.mark.parametrize("user", TABLE)
async def test_p6_what_a_user_publishes_arrives_exactly_where_the_table_says(server: NatsServer, user: str) -> None:
    arrived: set[str] = set()
    async with (
        raw_client(server.url, user=ADMIN, nkey_seed=seed(ADMIN)) as admin,
        raw_client(server.url, user=user, nkey_seed=seed(user)) as client,
    ):
        admin.subscribe(">")
        await admin.heard()
        for part in parts():
            for subject in part:
                client.send(subject, b"x", reply="")
            await client.heard()
            # Services answer in another account a moment later than the sender's PONG.
            client.send(f"_INBOX_{user}.end", b"", reply="")
            await client.heard()
            arrived |= {subject.decode() for subject, _ in await admin.heard()}
    wanted = {subject for subject in TRIED if matched(TABLE[user].publish, subject)}
    assert arrived & set(TRIED) == wanted


@pytest.mark.parametrize("user", TABLE)
async def test_p6_a_user_hears_exactly_what_the_table_says(server: NatsServer, user: str) -> None:
    async with raw_client(server.url, user=user, nkey_seed=seed(user)) as client:
        refused: set[str] = set()
        for part in parts():
            for subject in part:
                client.subscribe(subject)
            answers = [line.decode() for verb, line in await client.heard() if verb == b"-ERR"]
            refused |= {line.split('"')[1] for line in answers if "Permissions Violation for Subscription" in line}
            client.unsubscribe_all()
    heard = set(TRIED) - refused
    assert heard == {subject for subject in TRIED if covered(TABLE[user].subscribe, subject)}


def test_the_table_is_about_every_user_of_the_configuration() -> None:
    everybody = {user.name for user in users([template()], readers=[Reader("analytics", ("refund",))])}
    assert everybody - {ADMIN, SYSTEM_ADMIN} == set(TABLE)
