"""Tells what happens in all flows, one line for each message, while people develop."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable

from google.protobuf.message import DecodeError

from handrail.mesh.bus import Bus, BusSettings, NatsBus, RawMessage
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import cut
from handrail.mesh.streams import FLOW, stream_walk
from handrail.mesh.streams.outcomes import readable
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import Kind
from handrail.v1.failure_pb2 import StepCompleted, StepFailed

_EVERYTHING = "flow.>"
_PAUSE = 0.3
_DIGITS = 12
_MOST_KEYS = 10_000
_INNER_CAPITAL = re.compile(r"(?<!^)(?=[A-Z])")
_COMPLETED = StepCompleted.DESCRIPTOR.full_name


class Steps:
    """Follows FLOW in a thread of its own, from its end when it starts, as a user of the broker that may read it."""

    def __init__(self, settings: BusSettings, tell: Callable[[str], None]) -> None:
        self._settings = settings
        self._tell = tell
        self._names: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="steps", daemon=True)

    def start(self) -> None:
        """Begins to tell."""
        self._thread.start()

    def stop(self) -> None:
        """Ends it, and waits for the end."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._follow())

    async def _follow(self) -> None:
        after: int | None = None
        while not self._stopping.is_set():
            try:
                async with await NatsBus.connect(self._settings) as bus:
                    after = await _last_sequence(bus) if after is None else after
                    while not self._stopping.is_set():
                        async for message in stream_walk.oldest_first(bus, FLOW, _EVERYTHING, after=after):
                            after = message.sequence
                            self._say(message)
                        await asyncio.sleep(_PAUSE)
            except BrokenPipeError:
                return  # nobody reads the lines any more
            except HandrailError:  # the broker is being restarted, which the stack tells
                await asyncio.sleep(_PAUSE)

    def _say(self, message: RawMessage) -> None:
        recorded = readable(message)
        what = f"can't be read: {message.subject}" if recorded is None else said(recorded)
        if what:
            name = "" if recorded is None else f"{recorded.address.flow_type}/{self._name(recorded)}  "
            self._tell(f"{message.time.astimezone():%H:%M:%S}  {name}{what}")

    def _name(self, recorded: Recorded) -> str:
        flow_id = recorded.address.flow_id
        if recorded.event.key:
            if len(self._names) >= _MOST_KEYS:
                self._names.clear()
            self._names[flow_id] = recorded.event.key
        return self._names.get(flow_id, flow_id[:_DIGITS])


def said(recorded: Recorded) -> str:
    """Says what a message of a flow does; empty for one that only shows that somebody is at work. Pure."""
    name, event = recorded.type.rpartition(".")[2], recorded.event
    match recorded.kind:
        case Kind.EVENT if not event.step:
            return f"begins: {name} ({recorded.agent})"
        case Kind.EVENT:
            return f"{event.step}: {'done' if recorded.type == _COMPLETED else name} ({recorded.agent})"
        case Kind.PROPOSAL:
            return f"{event.step}: {name} is proposed ({recorded.agent})"
        case Kind.RELEASED:
            return f"{event.step}: {name} is released"
        case Kind.FAILURE:
            return f"{event.step}: failed: {_failure(recorded)} ({recorded.agent})"
        case Kind.UNDONE:
            return f"{event.step}: undone ({recorded.agent})"
        case Kind.RETRY:
            return f"{event.step}: attempt {event.attempt} ({recorded.agent})"
        case Kind.UNDO:
            return f"{event.step}: is to be undone ({recorded.agent})"
        case Kind.DIVERGENCE:
            return f"{event.step}: diverges from the template ({recorded.agent})"
        case Kind.DECISION:
            return f"{event.step or 'flow'}: {_INNER_CAPITAL.sub(' ', name).lower()}"
    return ""


def _failure(recorded: Recorded) -> str:
    try:
        failed = StepFailed.FromString(recorded.event.data.value)
    except DecodeError:
        return "for a reason that can't be read"
    return cut(failed.text or failed.error_class)


async def _last_sequence(bus: Bus) -> int:
    info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}")
    return int(info["state"]["last_seq"])
