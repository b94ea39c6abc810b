"""Somebody on the network answers in a server's place, without TLS, and waits for secrets."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.attacks.attack import Run, attack, succeeded
from tests.attacks.installation import Installation
from tests.support.authority import Authority
from tests.support.dev import handrail_process
from tests.support.fake_broker import FakeBroker, fake_broker


def last_line(text: str) -> str:
    """The last line of what a command said."""
    return (text.strip().splitlines() or ["nothing"])[-1]


async def told(fake: FakeBroker, *arguments: str | Path, **env: str) -> str:
    """What a command says that meets the fake server; raises Succeeded if the fake was sent anything."""
    done = await asyncio.to_thread(handrail_process, *arguments, env=env)
    if fake.received or done.returncode == 0:
        succeeded(f"it was sent {fake.received[:300]!r}; the command ended with {done.returncode}")
    return last_line(done.stderr)


@attack("44", "a token crosses the network in plain text", mutant="p6_a_token_goes_out_in_plain_text")
async def plain_token(target: Installation) -> str:
    """The command is pointed at another machine's address, and nothing is said of TLS."""
    token = target.folder / "token-of-vera"
    token.write_text(target.token("vera"))
    async with fake_broker(host="0.0.0.0", mute=True) as fake:
        return await told(fake, "flow", "list", "--address", f"0.0.0.0:{fake.port}", "--token-file", token)


def without_tls(scheme: str) -> Run:
    """An agent's password is asked for by a server that offers no TLS."""

    async def answer_in_its_place(target: Installation) -> str:
        authority = Authority(target.folder / "authority")
        async with fake_broker() as fake:
            address = f"{scheme}://127.0.0.1:{fake.port}"
            command = ("health", "agent", "ledger", "--nats", address, "--nats-ca", authority.certificate)
            return await told(fake, *command, HANDRAIL_NATS_PASSWORD="password-of-ledger")

    return answer_in_its_place


MUTANT = "p6_a_broker_without_tls_gets_the_password"

attack("46", "down-grade of TLS to the broker, nats:// and a CA given", mutant=MUTANT)(without_tls("nats"))
attack("47", "down-grade of TLS to the broker, tls:// and a CA given", mutant=MUTANT)(without_tls("tls"))
