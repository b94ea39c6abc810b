"""Servers with the permissions that Handrail generates: every agent, the coordinator and people are users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.bus.nkey import new_seed, public_key
from handrail.mesh.permissions import Credentials, Reader, render, users
from handrail.v1.template_pb2 import FlowTemplate, Step
from tests.support.nats_server import NatsServer, running_server


def asked_and_granted(*more: Step, version: int = 1) -> FlowTemplate:
    """A template with the parts that permissions depend on: `desk` asks, `refunds` grants; `more` are further steps."""
    grant = Step(name="grant", agent="refunds", after=["shop.v1.Asked"], emits=["shop.v1.Granted"])
    return FlowTemplate(
        name="refund",
        version=version,
        starts_with=["shop.v1.Asked"],
        started_by=["desk"],
        steps=[grant, *more],
    )


def seed(user: str) -> str:
    """The seed of a user's nkey."""
    return new_seed(sha256(user.encode()).digest())


def configuration(*templates: FlowTemplate, readers: Sequence[Reader] = ()) -> str:
    """The broker's accounts for these templates and readers."""
    everybody = users(templates, readers=readers)
    return render(everybody, {user.name: Credentials(nkeys=(public_key(seed(user.name)),)) for user in everybody})


def seed_file(server: NatsServer, user: str) -> Path:
    """A file with the seed of a user's nkey."""
    path = server.folder / "nkeys" / user
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"{seed(user)}\n")
    return path


def as_user(server: NatsServer, user: str) -> BusSettings:
    """The connection settings of this user."""
    return BusSettings(servers=(server.url,), name=user, nkey_seed_file=seed_file(server, user))


async def connect(server: NatsServer, user: str) -> NatsBus:
    """A bus connected as this user."""
    return await NatsBus.connect(as_user(server, user))


@contextmanager
def guarded_server(
    folder: Path, *templates: FlowTemplate, readers: Sequence[Reader] = (), extra: str = ""
) -> Iterator[NatsServer]:
    """Runs a server with the permissions of these templates and readers while the block runs."""
    with running_server(folder, accounts=configuration(*templates, readers=readers), extra=extra) as server:
        yield server
