"""A thief has the seed of an agent's nkey, and goes on with it after a person did something about it."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from dataclasses import replace

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.errors import HandrailError, WrongCredentials
from handrail.mesh.streams import FLOW
from tests.attacks.attack import attack, succeeded
from tests.attacks.installation import Installation

THIEF = "refunds"
SECONDS = 30
"""How long a thief may go on: a command runs in between, which takes seconds on a busy machine."""


async def ended(target: Installation, thief: NatsBus, *options: str) -> None:
    """Changes the thief's user; raises Succeeded if the thief still reads after the time there is for that."""
    command = ("nats-permissions", "--credentials", target.nkey(THIEF).parents[1], "--nats", target.nats)
    out = ("--out", target.folder / "nats" / "permissions.conf", "--reload")
    async with asyncio.timeout(SECONDS):
        done = await asyncio.to_thread(target.handrail, "vera", *map(str, (*command, *out)), *options)
        assert done.returncode == 0, done.stdout + done.stderr
        with suppress(HandrailError):
            while thief.connection.connected:
                await thief.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
                await asyncio.sleep(0.01)
    settings = thief.connection.settings
    with suppress(WrongCredentials):
        async with await NatsBus.connect(settings):
            succeeded(f"it connects after {' '.join(options)}")


@attack(
    "121",
    "a thief goes on with an agent's nkey after the agent has another one, or is suspended",
    fresh=True,
    mutant=("p6_a_retired_nkey_stays_valid", "p6_a_suspended_agent_is_let_in"),
)
async def go_on(target: Installation) -> str:
    """The agent's own processes are restarted with the new nkey; they don't come back while it is suspended."""
    stolen = target.folder / "stolen"
    shutil.copy(target.nkey(THIEF), stolen)
    settings = BusSettings(servers=(target.nats,), name=THIEF, nkey_seed_file=stolen)
    async with await NatsBus.connect(settings) as thief:
        await ended(target, thief, "--rotate", THIEF, "--retire", THIEF)
    shutil.copy(target.nkey(THIEF), stolen)
    async with await NatsBus.connect(replace(settings, nkey_seed_file=stolen)) as thief:
        await ended(target, thief, "--suspend", THIEF)
    return f"the broker ended its connection within {SECONDS} s, and lets it in no more"
