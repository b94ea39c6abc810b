"""`handrail health`: whether a part of an installation works; for health checks of containers."""

from __future__ import annotations

import argparse
import asyncio
import sys
import urllib.error
import urllib.request

from handrail.cli.arguments import TRANSPORT, add_settings, settings_of
from handrail.cli.exit_codes import CommandError, Exit
from handrail.mesh import settings as table
from handrail.mesh.bus import ApiError, Bus, NatsBus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.permissions import durable
from handrail.mesh.printable import clean
from handrail.mesh.setting import Settings
from handrail.mesh.settings import bus_settings
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import agent_filters
from handrail.mesh.streams.workers import live_workers


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the command's arguments to its parser."""
    parser.description = "Exit with 0 if the part works, 1 if it does not, 3 if it does not answer."
    parts = parser.add_subparsers(metavar="PART", required=True)

    broker = parts.add_parser("broker", help="a nats-server: JetStream is available")
    broker.add_argument("url", metavar="URL", help="its monitoring address, such as http://127.0.0.1:8222")
    add_settings(broker, [table.TIMEOUT])
    broker.set_defaults(run=_broker)

    coordinator = parts.add_parser("coordinator", help="a coordinator: it is serving")
    add_settings(coordinator, [*TRANSPORT, table.TIMEOUT])
    coordinator.set_defaults(run=_coordinator)

    visibility = parts.add_parser("visibility", help="visibility: its index answers")
    add_settings(visibility, [table.VISIBILITY, table.VISIBILITY_CA, table.VISIBILITY_SECRET_FILE, table.TIMEOUT])
    visibility.set_defaults(run=_visibility)

    agent = parts.add_parser("agent", help="an agent: at least one worker asks for work, and no handler is stuck")
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
        raise CommandError(f"{arguments.url} is unhealthy: {error.reason}") from None
    except (OSError, ValueError) as error:
        raise CommandError(f"{arguments.url} does not answer: {error}", Exit.UNREACHABLE) from None


def _coordinator(arguments: argparse.Namespace) -> Exit:
    # Imported on demand: the health of an agent needs no gRPC.
    from handrail.cli.probe import reported_parts, serves
    from handrail.cli.transport import Transport

    settings = settings_of(arguments)
    # Health needs no token: without TLS nothing secret is sent.
    transport, timeout = Transport.of(settings, secret=False), settings.value(table.TIMEOUT)
    address = transport.address
    with transport.channel() as channel:
        is_serving = serves(channel, timeout)
        parts = reported_parts(channel, timeout)
    if is_serving:
        if parts:
            print(clean(f"{address} is serving, and reports {', '.join(parts)}; see its log"), file=sys.stderr)
        return Exit.OK
    if parts:
        raise CommandError(f"{address} is unhealthy: {', '.join(parts)}; see its log")
    raise CommandError(f"{address} is not serving", Exit.UNREACHABLE)


def _visibility(arguments: argparse.Namespace) -> Exit:
    # Imported on demand, too.
    from handrail.cli.index_health import require_index

    print(clean(require_index(settings_of(arguments))), file=sys.stderr)
    return Exit.OK


def _agent(arguments: argparse.Namespace) -> Exit:
    settings = settings_of(arguments)
    name: str = arguments.name
    waiting, stuck = asyncio.run(_seen(name, settings))
    if not waiting:
        raise CommandError(f"no worker of {name} asks for work")
    if stuck:
        raise CommandError(
            f"{len(stuck)} handlers of {name} do not end although their attempts are over: {'; '.join(stuck)}"
        )
    return Exit.OK


async def _seen(name: str, settings: Settings) -> tuple[bool, list[str]]:
    """Tells whether a worker asks for work or holds some, and which handlers are stuck."""
    timeout = settings.value(table.TIMEOUT)
    async with await NatsBus.connect(bus_settings(settings, name)) as bus:
        try:
            info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable(name)}", timeout=timeout)
        except ApiError as error:
            why = await _why_no_durable(bus, name, error)
            raise CommandError(f"agent {name} has no durable consumer: {why}") from None
        if info.get("paused"):
            raise CommandError(f"the durable consumer of {name} is paused: resume it with the broker's own tools")
        workers = await live_workers(bus, [name])
    return bool(info.get("num_waiting") or info.get("num_ack_pending")), workers[name].stuck


async def _why_no_durable(bus: Bus, name: str, error: ApiError) -> str:
    """Explains why this agent has no durable on the broker, and what to do: an activation creates it."""
    if error.code != CONSUMER_NOT_FOUND:
        return f"{error.description}; a coordinator creates what is missing, or its log says why not"
    catalog = Catalog(bus)
    await catalog.refresh()
    stored = [each for each in catalog.all() if name in agent_filters([each])]
    if not stored:
        return "no stored template has a step for it, so it has no work; store and activate a template that has one"
    for template in stored:
        if any(each.version == template.version for each in catalog.activations(template.name)):
            return (
                f"it was deleted: {template.name}@{template.version} was activated and has a step for it; a "
                "coordinator recreates it within ten seconds: start one, or see its log"
            )
    named = ", ".join(f"{each.name}@{each.version}" for each in stored)
    return f"no template with a step for it was ever activated; activate a stored one: {named}"
