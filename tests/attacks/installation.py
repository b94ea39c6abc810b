"""The installation that is attacked: `handrail dev` with the payments demo, all of it processes of their own.

A nats-server with the generated accounts, the coordinator, and the demo's five agents. Attackers have what an attacker
may have: an agent's nkey, a token of their own, or nothing.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import grpc.aio
import jwt
from google.type.money_pb2 import Money

from demos.payments.book import Book
from handrail.cli.credentials import CredentialsFolder
from handrail.coordinator.api.dev_tokens import KeyFiles
from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import Reader
from handrail.mesh.streams.catalog import Catalog
from payments.v1.payments_pb2 import ChargebackReceived
from tests.support.dev import Dev, running_dev, wait_for
from tests.support.mesh import Mesh
from tests.support.people import People
from tests.support.raw_client import RawClient, raw_client

SMALL, LARGE = 250, 5_000
"""Claims in whole euros: without a gate, and with one."""

ACCOUNT = "acct-0001"
"""An account that the demo knows."""

READER, OTHER_READER = Reader("analytics", ("refund",)), Reader("gossip", ("loan",))
"""Readers of the demo's flow type, and of another one."""


class Installation:
    """What an attack is tried on. Channels and buses belong to the event loop of the attack that opens them."""

    def __init__(self, dev: Dev) -> None:
        self._dev = dev
        self.folder = dev.folder
        self.address: str = dev.ready["address"]
        self.nats: str = dev.ready["nats"]
        self.index: str = dev.ready["visibility"]
        self.pids: Mapping[str, int] = dev.ready["pids"]
        self.keys = KeyFiles(self.folder / "keys/jwt-private.pem", self.folder / "keys/jwt-public.pem")

    @property
    def book(self) -> Book:
        """The ledger's book: what was paid."""
        return Book(self.folder / "work" / "ledger.sqlite")

    def log(self, name: str) -> str:
        """What a process wrote: `coordinator`, `nats-server`, or an agent."""
        return (self.folder / "logs" / f"{name}.log").read_text(errors="replace")

    # What an attacker may have.

    def token(
        self, subject: str, *roles: str, agent: str = "", lifetime: timedelta = timedelta(hours=1), **claims: Any
    ) -> str:
        """A token signed with the installation's key. `claims` are added, or replace those that are there; one that is
        None is left out.
        """
        now = datetime.now(UTC)
        made: dict[str, Any] = {
            "sub": subject,
            "roles": sorted(roles),
            "iss": "handrail",
            "aud": "handrail",
            "iat": now,
            "nbf": now,
            "exp": now + lifetime,
            **({"agent": agent} if agent else {}),
            **claims,
        }
        present = {name: value for name, value in made.items() if value is not None}
        return jwt.encode(present, self.keys.private.read_bytes(), algorithm="EdDSA")

    def channel(self, token: str = "") -> grpc.aio.Channel:
        """A channel to the coordinator whose calls all carry this token; use it with `async with`."""
        if not token:
            return grpc.aio.insecure_channel(self.address)
        local = grpc.local_channel_credentials()
        credentials = grpc.composite_channel_credentials(local, grpc.access_token_call_credentials(token))
        return grpc.aio.secure_channel(self.address, credentials)

    def nkey(self, user: str) -> Path:
        """The file with the seed of a user's nkey for the broker."""
        return Path(self._dev.ready["credentials"]) / user / "nkey"

    @asynccontextmanager
    async def bus_as(self, user: str) -> AsyncIterator[NatsBus]:
        """A connection to the broker as one of its users."""
        settings = BusSettings(servers=(self.nats,), name=user, nkey_seed_file=self.nkey(user))
        async with await NatsBus.connect(settings) as bus:
            yield bus

    @asynccontextmanager
    async def raw_as(self, user: str) -> AsyncIterator[RawClient]:
        """The same without any client library: it publishes what no client would."""
        async with raw_client(self.nats, user=user, nkey_seed=self.nkey(user).read_text().strip()) as client:
            yield client

    # Everybody else.

    @asynccontextmanager
    async def people(self) -> AsyncIterator[People]:
        """The people of tests.support, who call this installation: olga operates, anna and ben approve, vera looks."""
        async with self.channel() as channel:
            yield People(_Door(self, channel))

    def handrail(self, person: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What the `handrail` command does in the name of olga, vera, anna or ben."""
        return self._dev.run(person, *arguments, stdin=stdin)

    @contextmanager
    def silenced(self, *agents: str) -> Iterator[None]:
        """These agents don't run while the block does: an attacker has taken their place."""
        groups = [os.getpgid(self.pids[agent]) for agent in agents]
        for group in groups:
            os.killpg(group, signal.SIGSTOP)
        try:
            yield
        finally:
            for group in groups:
                os.killpg(group, signal.SIGCONT)

    def claim(self, units: int = SMALL) -> ChargebackReceived:
        """A claim of its own, which begins a flow."""
        return ChargebackReceived(
            chargeback_id=f"cb-{uuid4().hex[:12]}",
            account_id=ACCOUNT,
            amount=Money(currency_code="EUR", units=units),
        )

    async def until_settled(self, *durables: str) -> None:
        """Wait until an agent, or the coordinator (`decide`, `track`, `due`), has dealt with what there is for it."""
        async with self.bus_as("viewer") as bus:
            await Mesh(bus, Catalog(bus)).until_settled(*durables)

    async def flow_from_start(self, people: People, units: int = SMALL) -> str:
        """The id of a flow that olga starts."""
        return (await people.start(self.claim(units))).flow_id

    def transfers(self, chargeback_id: str) -> int:
        """How many transfers the book holds for a chargeback, reversals included."""
        return sum(each.chargeback_id == chargeback_id for each in self.book.transfers())


class _Door:
    """An installation as `People` calls it."""

    def __init__(self, target: Installation, channel: grpc.aio.Channel) -> None:
        self._target = target
        self.address = target.address
        self.channel = channel

    def token(self, subject: str, *roles: str, agent: str = "") -> str:
        """A valid token."""
        return self._target.token(subject, *roles, agent=agent)


@contextmanager
def running_installation(folder: Path) -> Iterator[Installation]:
    """An installation with its data in `folder`, for as long as the block runs."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for reader in (READER, OTHER_READER):
        CredentialsFolder(folder / "credentials").add_reader(reader, ())
    with running_dev(folder, "--agents", "demos.payments") as dev:
        _wait_for_agents(dev)
        yield Installation(dev)


def _wait_for_agents(dev: Dev) -> None:
    """Wait until a small refund has passed through all of them."""
    amount = {"currencyCode": "EUR", "units": f"{SMALL}"}
    claim = json.dumps({"chargebackId": "cb-first", "accountId": ACCOUNT, "amount": amount})
    flow_id = dev.text("olga", "flow", "start", "refund", "--data", claim).strip()

    def is_completed() -> bool:
        return "COMPLETED" in dev.text("vera", "flow", "show", flow_id)

    wait_for(is_completed, "the first flow completes")
