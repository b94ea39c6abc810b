"""Asks every nats-server of an installation to load its configuration again, through the system account."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from typing import NamedTuple
from uuid import uuid4

from handrail.mesh.bus import BusSettings
from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerUnavailable

_GATHERING = 2.0
"""Seconds that the servers have to say that they are there."""

_ANSWER = timedelta(seconds=5)


class Reloaded(NamedTuple):
    """What became of one server."""

    server: str
    problem: str = ""
    """Why it still has its former configuration; empty if it has loaded the files it has."""
    changed: bool = False
    """Whether the files differ from those that it had loaded before."""


async def reload_servers(settings: BusSettings, write: Callable[[], None]) -> list[Reloaded]:
    """Reloads all servers at once, and returns what each answered, by name; servers that are silent come last.

    `write` writes the new files. It is called once the servers have said what they have: somebody else may have them
    reloaded as soon as there is something new. `settings` are those of a user of the system account, as the servers
    know it before the reload. Raises BrokerUnavailable or BrokerPermission without a connection, and what `write`
    raises.
    """
    connection = await Connection.open(settings)
    try:
        servers, silent = await _servers(connection)
        before = await asyncio.gather(*(_digest(connection, id_) for id_ in servers))
        write()
        done = await asyncio.gather(
            *(_reload(connection, *server, digest) for server, digest in zip(servers.items(), before, strict=True))
        )
    finally:
        await connection.close()
    return sorted(done) + [Reloaded("a server", f"did not say its name within {_GATHERING:g} s")] * silent


async def _servers(connection: Connection) -> tuple[dict[str, str], int]:
    """The names of all servers by id, and how many more there are that do not answer."""
    found: dict[str, str] = {}
    complete = asyncio.Event()
    expected = 1

    def take(message: Message) -> None:
        nonlocal expected
        answer = json.loads(message.data)
        found[answer["server"]["id"]] = answer["server"]["name"]
        expected = max(expected, answer["statsz"]["active_servers"])
        if len(found) >= expected:
            complete.set()

    inbox = f"{connection.settings.inbox}.servers-{uuid4().hex}"
    await connection.subscribe(inbox, take)
    connection.send("$SYS.REQ.SERVER.PING", b"", reply=inbox)
    with suppress(TimeoutError):
        await asyncio.wait_for(complete.wait(), _GATHERING)
    return dict(found), max(0, expected - len(found))  # a copy: others may still answer


async def _reload(connection: Connection, id_: str, name: str, before: str) -> Reloaded:
    try:
        answer = await _ask(connection, id_, "RELOAD")
        if "error" in answer:
            return Reloaded(name, str(answer["error"]["description"]))
        return Reloaded(name, changed=before != await _digest(connection, id_))
    except BrokerUnavailable as error:
        return Reloaded(name, error.text)


async def _digest(connection: Connection, id_: str) -> str:
    """The digest of all files of the configuration that a server has loaded; empty if it does not answer."""
    with suppress(BrokerUnavailable):
        return str((await _ask(connection, id_, "VARZ"))["data"]["config_digest"])
    return ""


async def _ask(connection: Connection, id_: str, verb: str) -> Mapping[str, Mapping[str, object]]:
    message = await connection.request(f"$SYS.REQ.SERVER.{id_}.{verb}", b"", timeout=_ANSWER)
    answer: Mapping[str, Mapping[str, object]] = json.loads(message.data)
    return answer
