"""Gives FLOW a configuration that lets it be purged: the broker takes `deny_purge` back only in a new stream.

1. Nobody works with FLOW: agents, coordinators and readers are stopped.
2. FLOW takes no further message.
3. Its messages and durables are written to a snapshot, which is on the disk; so is what it has to contain.
4. The snapshot is read, and has what FLOW has. FLOW is deleted, and restored from it with `deny_purge: false`.
5. What it contains is compared.

After a crash at any step, the same command with the same folder goes on.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

from handrail.mesh.bus import NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.provisioning import config_of
from handrail.mesh.streams.s2 import NotWhole
from handrail.mesh.streams.snapshot import digest_of, restore, take
from handrail.mesh.streams.snapshot_file import SnapshotFile
from handrail.mesh.streams.stream_walk import oldest_first
from handrail.mesh.streams.streams import CREATED, FLOW, Config, created
from handrail.mesh.waiting import Patience
from handrail.v1.error_reason_pb2 import ErrorReason

_FROZEN = "handrail-frozen"
"""The metadata key of a FLOW that takes no messages because of this command."""

_SETTLING = timedelta(seconds=15)
"""How long a restored durable may take until its servers agree on it."""


@dataclass(frozen=True, slots=True)
class Content:
    """What FLOW has: the number of its messages, the last sequence, a SHA-256 of all of them, and its durables."""

    messages: int
    last: int
    digest: str
    durables: Mapping[str, int]


async def enable_retention(bus: NatsBus, folder: Path) -> AsyncIterator[str]:
    """Does what is left to do, and yields each step once it is done. `folder` keeps the snapshot.

    Raises FOREIGN_STREAM if somebody works with FLOW, or if it does not have what it had; OSError; and what the broker
    says.
    """
    files = _Files(folder)
    config = await config_of(bus, FLOW)
    if config is not None and not config.get("deny_purge"):
        if files.content is not None:
            yield await _compare(bus, files.content)
        return
    if config is not None:
        await _refuse_company(bus)
        if files.config is None and _FROZEN in config.get("metadata", {}):
            raise _refused(f"the command was begun with another folder than {folder}: give that one")
        files.keep("config.json", files.config or config)
        await _freeze(bus, config)
        yield "FLOW takes no messages"
        content = await _content(bus)
        state = await take(bus, FLOW, files.snapshot)
        await asyncio.to_thread(_require_all, files.snapshot, content)
        made = created(await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))
        seal = {"state": state, "content": asdict(content), "sha256": digest_of(files.snapshot), "created": made}
        files.keep("taken.json", seal)
        yield f"{content.messages} messages and {len(content.durables)} durables are in {files.snapshot}"
        if await _content(bus) != content:
            raise _refused("FLOW has changed since: stop who works with it, and run the command again")
    taken = files.taken
    if taken is None or files.config is None:
        raise _refused(f"FLOW is gone, and {folder} has no snapshot of it: give the folder that has")
    if digest_of(files.snapshot) != taken["sha256"]:
        raise _refused(f"{files.snapshot} is damaged")
    if config is not None:
        await bus.request_json(f"$JS.API.STREAM.DELETE.{FLOW}")
        yield "FLOW is deleted"
    metadata = {**files.config.get("metadata", {}), CREATED: taken["created"]}
    purgeable = {**files.config, "deny_purge": False, "metadata": metadata}
    await restore(bus, purgeable, taken["state"], files.snapshot)
    yield "FLOW is restored, and can be purged"
    yield await _compare(bus, Content(**taken["content"]))


class _Files:
    """The folder of a snapshot. A file is whole, or not there."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.snapshot = folder / "FLOW.snapshot"

    @property
    def config(self) -> Config | None:
        """The configuration that FLOW had."""
        return self._read("config.json")

    @property
    def taken(self) -> Mapping[str, Any] | None:
        """What the snapshot has to contain."""
        return self._read("taken.json")

    @property
    def content(self) -> Content | None:
        """What FLOW had."""
        return None if self.taken is None else Content(**self.taken["content"])

    def keep(self, name: str, value: Mapping[str, Any]) -> None:
        """Stores a value on the disk."""
        part = self._folder / f"{name}.part"
        with part.open("w") as output:
            json.dump(value, output)
            output.flush()
            os.fsync(output.fileno())
        os.rename(part, self._folder / name)
        listed = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(listed)
        finally:
            os.close(listed)

    def _read(self, name: str) -> Mapping[str, Any] | None:
        try:
            value: Mapping[str, Any] = json.loads((self._folder / name).read_text())
        except FileNotFoundError:
            return None
        return value


async def _refuse_company(bus: NatsBus) -> None:
    """Raises FOREIGN_STREAM if somebody pulls from FLOW."""
    working = [each["name"] for each in await _consumers(bus) if each.get("num_waiting")]
    if working:
        raise _refused(
            f"somebody works with FLOW ({', '.join(sorted(working))}): stop agents, coordinators, visibility and "
            "readers, and run the command again after 10 seconds"
        )


async def _freeze(bus: NatsBus, config: Config) -> None:
    """Has FLOW refuse messages: it is full, and it refuses what is new."""
    state = (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]
    marked = {**config.get("metadata", {}), _FROZEN: "1"}
    frozen = {**config, "max_msgs": max(int(state["messages"]), 1), "metadata": marked}
    await bus.request_json(f"$JS.API.STREAM.UPDATE.{FLOW}", frozen)


class _Tally:
    """Counts messages, and digests them without their headers: no flow needs them, and their forms differ."""

    def __init__(self) -> None:
        self._digest = sha256()
        self.messages = self.last = 0

    def add(self, message: RawMessage) -> None:
        """Counts a message."""
        self.messages, self.last = self.messages + 1, message.sequence
        for part in (message.subject.encode(), message.body, message.time.isoformat().encode()):
            self._digest.update(len(part).to_bytes(4))
            self._digest.update(part)
        self._digest.update(message.sequence.to_bytes(8))

    @property
    def digest(self) -> str:
        """The SHA-256 of all that was counted."""
        return self._digest.hexdigest()


async def _content(bus: NatsBus) -> Content:
    tally = _Tally()
    async for message in oldest_first(bus, FLOW, "flow.>"):
        tally.add(message)
    state = (await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}"))["state"]
    if tally.messages != state["messages"]:
        raise _refused(f"{tally.messages} of {state['messages']} messages could be read: run the command again")
    return Content(tally.messages, int(state["last_seq"]), tally.digest, await _floors(bus))


def _require_all(file: Path, content: Content) -> None:
    """Raises FOREIGN_STREAM unless a snapshot has exactly this: then nothing may be deleted."""
    snapshot, tally = SnapshotFile(file), _Tally()
    try:
        for message in snapshot.messages():
            tally.add(message)
    except NotWhole as error:
        raise _refused(f"{file} is not whole ({error}): FLOW stays as it is; run the command again") from error
    wrong = [name for name in ("messages", "last", "digest") if getattr(tally, name) != getattr(content, name)]
    wrong += sorted(content.durables.keys() - snapshot.consumers)
    if wrong:
        text = f"{file} does not have what FLOW has ({', '.join(wrong)}): FLOW stays as it is; run the command again"
        raise _refused(text)


async def _compare(bus: NatsBus, had: Content) -> str:
    """Says how FLOW is what it was. Raises FOREIGN_STREAM if it is not.

    A durable may be behind where it was: a replica that lags was packed. Then it delivers some messages once more, as
    after a crash of the broker. None may be ahead: it would pass messages over.
    """
    has = await _content(bus)
    patience = Patience(_SETTLING, longest=timedelta(seconds=1))
    while has.durables != had.durables and await patience.wait():
        has = replace(has, durables=await _floors(bus))
    wrong = [name for name in ("messages", "last", "digest") if getattr(has, name) != getattr(had, name)]
    wrong += [name for name, floor in had.durables.items() if not 0 <= has.durables.get(name, -1) <= floor]
    if wrong:
        raise _refused(f"FLOW does not have what it had ({', '.join(wrong)}): keep the snapshot, and ask for help")
    behind = sorted(name for name, floor in had.durables.items() if has.durables[name] < floor)
    again = f"; {', '.join(behind)} will deliver some messages again" if behind else ""
    return f"FLOW has all that it had{again}: start agents and coordinators again"


async def _floors(bus: NatsBus) -> dict[str, int]:
    """Up to which sequence everything is acknowledged, by durable."""
    return {each["name"]: int(each["ack_floor"]["stream_seq"]) for each in await _consumers(bus)}


async def _consumers(bus: NatsBus) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    while True:
        page = await bus.request_json(f"$JS.API.CONSUMER.LIST.{FLOW}", {"offset": len(found)})
        found += page.get("consumers") or []
        if len(found) >= int(page["total"]):
            return [each for each in found if each["config"].get("durable_name")]


def _refused(text: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_FOREIGN_STREAM, text, stream=FLOW)
