"""Tokens of an ordinary identity provider: logging in, programs, and keys that rotate."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from handrail.cli.login.stored_login import path_of
from handrail.mesh.bus import NatsBus
from handrail.v1.identity_service_pb2 import WhoAmIRequest, WhoAmIResponse
from tests.support.api import Api, bearer, refused
from tests.support.provider import installed_provider, sign_in
from tests.support.provider_house import house
from tests.support.waiting import eventually

# What npm has to fetch may take its time: that is no fault of ours.
pytestmark = pytest.mark.timeout(600)

HANDRAIL = Path(sys.executable).with_name("handrail")


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return installed_provider(tmp_path_factory.mktemp("provider"))


async def who(api: Api, token: str) -> WhoAmIResponse:
    answer: WhoAmIResponse = await api.call(
        "IdentityService/WhoAmI", WhoAmIRequest(), WhoAmIResponse, metadata=bearer(token)
    )
    return answer


class Terminal:
    """A terminal of one person: commands for one coordinator."""

    def __init__(self, api: Api, folder: Path) -> None:
        plain = {name: value for name, value in os.environ.items() if not name.startswith("HANDRAIL_")}
        self._environment = {**plain, "XDG_STATE_HOME": str(folder / "state"), "HANDRAIL_ADDRESS": api.address}
        self.login_file = path_of(api.address, self._environment)

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            HANDRAIL, *words, env=self._environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def run(self, *words: str) -> tuple[int, str, str]:
        """Exit code, output and remarks of a command."""
        process = await self.start(*words)
        out, err = await process.communicate()
        return process.returncode or 0, out.decode(), err.decode()

    async def log_in(self, issuer: str, person: str, *, deny: bool = False) -> tuple[int, str]:
        """Exit code and remarks of a login that this person confirms, or denies."""
        process = await self.start("login", "--oidc-issuer", issuer, "--oidc-resource", "urn:handrail:api")
        assert process.stderr is not None
        remark = (await process.stderr.readline()).decode()
        link = next(word for word in remark.split() if word.startswith("http"))
        await asyncio.to_thread(sign_in, link, person, deny=deny)
        _, rest = await process.communicate()
        return process.returncode or 0, rest.decode()

    def stored(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.login_file.read_text())
        return found


@pytest.mark.parametrize("algorithm", ["ES256", "RS256"])
async def test_a_person_logs_in_works_and_logs_out(
    bus: NatsBus, installation: Path, tmp_path: Path, algorithm: str
) -> None:
    async with house(bus, installation, tmp_path, algorithm) as (api, provider):
        terminal = Terminal(api, tmp_path)
        assert await terminal.log_in(provider.issuer, "olga") == (0, "")
        assert terminal.login_file.stat().st_mode & 0o777 == 0o600
        code, out, _ = await terminal.run("whoami", "--output", "json")
        told = json.loads(out)
        assert (code, told["subject"], told["issuer"]) == (0, "olga", provider.issuer)
        assert any("operator" in grant for grant in told["grants"])
        assert (await terminal.run("flow", "list", "--scan"))[0] == 0
        token = terminal.stored()["access_token"]
        assert (await terminal.run("logout"))[0] == 0
        code, _, err = await terminal.run("whoami")
        assert (code, "no token" in err) == (5, True)
        # The access token is good until it expires: a logout can't reach the coordinator.
        assert (await who(api, token)).subject == "olga"


async def test_a_login_that_the_person_denies_is_none(bus: NatsBus, installation: Path, tmp_path: Path) -> None:
    async with house(bus, installation, tmp_path) as (api, provider):
        terminal = Terminal(api, tmp_path)
        code, err = await terminal.log_in(provider.issuer, "olga", deny=True)
        assert (code, "refuses" in err) == (5, True)
        assert (await terminal.run("whoami"))[0] == 5


async def test_a_login_is_refreshed_when_its_token_expires_by_several_commands_at_once(
    bus: NatsBus, installation: Path, tmp_path: Path
) -> None:
    # A token that is good for 20 s is refreshed by each command: it would expire soon.
    async with house(bus, installation, tmp_path, TOKEN_SECONDS="20") as (api, provider):
        terminal = Terminal(api, tmp_path)
        assert await terminal.log_in(provider.issuer, "anna") == (0, "")
        first = terminal.stored()
        ran = await asyncio.gather(*(terminal.run("whoami") for _ in range(3)))
        assert [code for code, _, _ in ran] == [0, 0, 0], ran
        assert terminal.stored()["refresh_token"] != first["refresh_token"]
        assert terminal.stored()["access_token"] != first["access_token"]


async def test_a_program_has_a_token_by_its_own_credentials(bus: NatsBus, installation: Path, tmp_path: Path) -> None:
    async with house(bus, installation, tmp_path) as (api, provider):
        answer = await who(api, await asyncio.to_thread(provider.client_token))
        assert (answer.subject, answer.agent) == ("ledger", "ledger")
        assert answer.token_id
        assert answer.expire_time.seconds - answer.issue_time.seconds == 600


@pytest.mark.parametrize("later", ["ES256", "RS256"])
async def test_keys_rotate_while_the_coordinator_runs(
    bus: NatsBus, installation: Path, tmp_path: Path, later: str
) -> None:
    async with house(bus, installation, tmp_path) as (api, provider):
        old = await asyncio.to_thread(provider.client_token)
        assert (await who(api, old)).subject == "ledger"
        await provider.rotate(later, "second")
        new = await asyncio.to_thread(provider.client_token)

        async def accepted() -> bool:
            try:
                return (await who(api, new)).subject == "ledger"
            except Exception:
                return False

        await eventually(accepted)
        refusal = await refused(who(api, old))
        assert (refusal.reason, "not signed with the key that it names" in refusal.status.message) == (
            "UNAUTHENTICATED",
            True,
        )


async def test_an_id_token_is_not_taken_for_one_that_gives_access(
    bus: NatsBus, installation: Path, tmp_path: Path
) -> None:
    async with house(bus, installation, tmp_path) as (api, provider):
        id_token = await asyncio.to_thread(provider.id_token, "olga")
        refusal = await refused(who(api, id_token))
        assert (refusal.reason, "for somebody else" in refusal.status.message) == ("UNAUTHENTICATED", True)
