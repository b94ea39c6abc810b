"""`handrail health`: whether a part of an installation does its work; for health checks of containers."""

from __future__ import annotations

import argparse
import asyncio
import urllib.error
import urllib.request
from datetime import timedelta

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1.health_pb2_grpc import HealthStub

from handrail.cli.arguments import add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.probe import serves
from handrail.mesh import settings as table
from handrail.mesh.bus import ApiError, Bus, NatsBus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.permissions import durable
from handrail.mesh.settings import bus_settings
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import agent_filters
from handrail.mesh.streams.workers import live_workers

# The stubs are older than the message.
_ListRequest = health_pb2.HealthListRequest  # type: ignore[attr-defined]

_PARTS = "handrail.part."
"""Before the names of parts in what `Health.List` answers: docs/operations.md has them."""


def fill(parser: argparse.ArgumentParser) -> None:
    """Give the command's parser its arguments."""
    parser.description = "Exit 0 where the part does its work, 1 where it does not, 3 where it does not answer."
    parts = parser.add_subparsers(metavar="PART", required=True)

    broker = parts.add_parser("broker", help="a nats-server: JetStream is there", allow_abbrev=False)
    broker.add_argument("url", metavar="URL", help="its monitoring address, such as http://127.0.0.1:8222")
    add_settings(broker, [table.TIMEOUT])
    broker.set_defaults(run=_broker)

    coordinator = parts.add_parser("coordinator", help="a coordinator: it serves", allow_abbrev=False)
    add_settings(coordinator, [table.ADDRESS, table.TIMEOUT])
    coordinator.set_defaults(run=_coordinator)

    agent = parts.add_parser(
        "agent", help="an agent: at least one worker asks for work, and no handler is stuck", allow_abbrev=False
    )
    agent.add_argument("name", metavar="NAME", help="the agent's name")
    add_settings(agent, [*table.BROKER, table.TIMEOUT])
    agent.set_defaults(run=_agent)


def _broker(arguments: argparse.Namespace) -> Exit:
    timeout = settings_of(arguments).value(table.TIMEOUT)
    url = f"{arguments.url.rstrip('/')}/healthz?js-enabled-only=true"
    try:
        with urllib.request.urlopen(url, timeout=timeout.total_seconds()):
            return Exit.OK
    except urllib.error.HTTPError as error:
        raise CommandError(f"{arguments.url} is not healthy: {error.reason}") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{arguments.url} does not answer: {error}", Exit.UNREACHABLE) from None


def _coordinator(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    address, timeout = settings.value(table.ADDRESS), settings.value(table.TIMEOUT)
    with grpc.insecure_channel(address) as channel:
        if serves(channel, timeout):
            return Exit.OK
        broken = _broken_parts(channel, timeout)
    if broken:
        raise CommandError(f"{address} is not healthy: {', '.join(broken)}; its log says more")
    raise CommandError(f"{address} does not serve", Exit.UNREACHABLE)


def _broken_parts(channel: grpc.Channel, timeout: timedelta) -> list[str]:
    """What the coordinator behind a channel finds broken; empty where it does not answer."""
    try:
        answer = HealthStub(channel).List(_ListRequest(), timeout=timeout.total_seconds())  # type: ignore[attr-defined]
    except grpc.RpcError:
        return []
    return sorted(
        name.removeprefix(_PARTS)
        for name, each in answer.statuses.items()
        if name.startswith(_PARTS) and each.status != health_pb2.HealthCheckResponse.SERVING
    )


def _agent(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    name: str = arguments.name
    waiting, stuck = asyncio.run(_seen(name, settings))
    if not waiting:
        raise CommandError(f"no worker of {name} asks for work")
    if stuck:
        raise CommandError(f"{len(stuck)} handlers of {name} do not end though their time is up: {'; '.join(stuck)}")
    return Exit.OK


async def _seen(name: str, settings: table.Settings) -> tuple[bool, list[str]]:
    """Whether a worker's request is open at the agent's durable, or work is in a worker's hands; and what is stuck."""
    timeout = settings.value(table.TIMEOUT)
    async with await NatsBus.connect(bus_settings(settings, name)) as bus:
        try:
            info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable(name)}", timeout=timeout)
        except ApiError as error:
            why = await _why_no_durable(bus, name, error)
            raise CommandError(f"{name} has no durable: {why}") from None
        workers = await live_workers(bus, [name])
    return bool(info.get("num_waiting") or info.get("num_ack_pending")), workers[name].stuck


async def _why_no_durable(bus: Bus, name: str, error: ApiError) -> str:
    """Why the broker has no durable of this agent, and what to do: an activation makes the durable."""
    if error.code != CONSUMER_NOT_FOUND:
        return f"{error.description}; a coordinator makes what is missing, or says in its log why it does not"
    catalog = Catalog(bus)
    await catalog.refresh()
    stored = [each for each in catalog.all() if name in agent_filters([each])]
    if not stored:
        return "no stored template has a step of it, so there is no work to ask for; store and activate one that has"
    for template in stored:
        if any(each.version == template.version for each in catalog.activations(template.name)):
            return (
                f"it was deleted, for {template.name}@{template.version}, which was activated, has a step of it; a "
                "coordinator makes it anew within ten seconds: start one, or see in its log why it does not"
            )
    named = ", ".join(f"{each.name}@{each.version}" for each in stored)
    return f"no template with a step of it was ever activated; activate one of those that are stored: {named}"
