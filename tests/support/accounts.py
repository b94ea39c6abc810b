"""Servers that run on the permissions which Handrail generates: every agent, the coordinator and people as users."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.permissions import render, users
from handrail.v1.template_pb2 import FlowTemplate, Step
from tests.support.nats_server import NatsServer, running_server


def asked_and_granted(*more: Step, version: int = 1) -> FlowTemplate:
    """A template as far as permissions read it: `desk` asks, `refunds` grants; `more` are further steps."""
    grant = Step(name="grant", agent="refunds", after=["shop.v1.Asked"], emits=["shop.v1.Granted"])
    return FlowTemplate(
        name="refund",
        version=version,
        starts_with=["shop.v1.Asked"],
        started_by=["desk"],
        steps=[grant, *more],
    )


def password(user: str) -> str:
    """A user's password on the broker."""
    return f"secret-of-{user}"


def configuration(*templates: FlowTemplate) -> str:
    """The broker's accounts for these templates."""
    return render(templates, {user.name: password(user.name) for user in users(templates)})


def as_user(server: NatsServer, user: str) -> BusSettings:
    """How this user connects."""
    return server.settings(user, user=user, password=password(user))


async def connect(server: NatsServer, user: str) -> NatsBus:
    """A bus of this user's."""
    return await NatsBus.connect(as_user(server, user))


@contextmanager
def guarded_server(folder: Path, *templates: FlowTemplate, extra: str = "") -> Iterator[NatsServer]:
    """A server that runs on the permissions of these templates, for as long as the block runs."""
    with running_server(folder, accounts=configuration(*templates), extra=extra) as server:
        yield server
