"""Sets up the streams and durables: creates, upgrades, and changes what an operator asks for.

A person runs it (`handrail admin setup`), as a user of the broker that running parts don't have. Nothing is changed in
silence: each change is told, and what is not Handrail's to change is refused with the reason.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from handrail.mesh.bus import ApiError, Bus, BusSettings, NatsBus
from handrail.mesh.errors import HandrailError
from handrail.mesh.instants import in_nanoseconds
from handrail.mesh.permissions import VISIBILITY
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import Durable, change, read_durables
from handrail.mesh.streams.promised import (
    LEAST_KEY_AGE,
    Difference,
    broken,
    changes,
    differences,
    is_former,
    starting_values,
)
from handrail.mesh.streams.provisioning import (
    actual_configs,
    config_of,
    create,
    foreign,
    is_ours,
    refuse_a_loss,
    require_server,
    reset_command,
)
from handrail.mesh.streams.quarantine_streams import agents_named
from handrail.mesh.streams.readers import EVERYTHING, ensure_reading
from handrail.mesh.streams.streams import (
    FLOW,
    KEY,
    TEMPLATE,
    WORKER,
    Config,
    quarantine_stream,
    stream_config,
    stream_configs,
)
from handrail.v1.error_reason_pb2 import ErrorReason

UNLIMITED = -1

AGELESS = (
    "flows, timers and decisions count whatever their age; of FLOW, retention purges what is finished and archived"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What an operator asks for: the number of `replicas` of every stream, the size of some streams in bytes, how long
    some keep a message (zero: for ever), and the streams and durables to `reset`: to configure again as Handrail needs
    them.
    """

    replicas: int | None = None
    max_bytes: Mapping[str, int] = field(default_factory=dict)
    max_age: Mapping[str, timedelta] = field(default_factory=dict)
    reset: frozenset[str] = frozenset()


async def set_up(bus: NatsBus, wishes: Wishes) -> AsyncIterator[str]:
    """Creates and changes streams and durables, and yields each change once it is made. Idempotent.

    Raises BROKER_TOO_OLD and STREAM_LOST before any change. Raises FOREIGN_STREAM if a configuration differs that
    nobody asked to reset: before any change if it is of a stream that belongs to no agent. The agents' quarantines, the
    durables and the names in `wishes` are checked after these streams are set up, because TEMPLATE tells which there
    are; what is made by then stays. Raises the errors of `Bus.request_json`.
    """
    await require_server(bus)
    await refuse_a_loss(bus)
    await _refuse_forgetting(bus, wishes)
    async for each in _set_up_streams(bus, stream_configs(), wishes):
        yield each
    catalog = Catalog(bus)
    await catalog.refresh_from_leader()
    durables = await read_durables(bus, catalog.all())
    quarantines = [quarantine_stream(agent) for agent in sorted(agents_named(catalog.all()))]
    _require_known(wishes, streams=[*stream_configs(), *quarantines], durables=[each.name for each in durables])
    async for each in _set_up_streams(bus, quarantines, wishes):
        yield each
    for durable in durables:
        _refuse_unasked("durable", durable.name, durable.broken, wishes)
    for durable in durables:
        if text := await _set_up_durable(bus, durable):
            yield f"durable {durable.name}: {text}"
    if text := await ensure_reading(bus, VISIBILITY, (EVERYTHING,)):
        yield text


async def set_up_broker(broker: BusSettings, wishes: Wishes, *, tell: Callable[[str], None]) -> int:
    """Connects, sets up, and tells each change; returns how many there were. Raises the errors of `set_up`."""
    changes = 0
    async with await NatsBus.connect(broker) as bus:
        async for text in set_up(bus, wishes):
            tell(text)
            changes += 1
    return changes


async def _set_up_streams(bus: Bus, names: Iterable[str], wishes: Wishes) -> AsyncIterator[str]:
    actual = await actual_configs(bus, names)
    flow = actual.get(FLOW) or await config_of(bus, FLOW)
    replicas = wishes.replicas or (int(flow["num_replicas"]) if flow else 1)
    wanted = {name: _fields(name, config, wishes) for name, config in actual.items()}
    for name, fields in wanted.items():
        config = actual[name]
        if config is None:
            made = await create(bus, {"name": name, **stream_config(name), "num_replicas": replicas, **fields})
            yield f"stream {name}: created, with {made['num_replicas']} replicas"
        elif fields:
            changed = changes(config, await _update(bus, name, {**config, **fields}))
            if changed:
                yield f"stream {name}: {'; '.join(changed)}"


def _fields(name: str, actual: Config | None, wishes: Wishes) -> dict[str, Any]:
    """The fields of a stream to change. Raises FOREIGN_STREAM if one would have to be changed that nobody asked for."""
    fields: dict[str, Any] = {}
    if wishes.replicas is not None:
        fields["num_replicas"] = wishes.replicas
    if name in wishes.max_bytes:
        if "max_bytes" not in starting_values(name):
            raise _refused(f"stream {name} can't have a limit: it would drop its oldest messages", name)
        fields["max_bytes"] = wishes.max_bytes[name]
    if name in wishes.max_age:
        if name != KEY and "max_age" not in starting_values(name):
            raise _refused(f"stream {name} can't drop messages by their age: {AGELESS}", name)
        fields["max_age"] = in_nanoseconds(wishes.max_age[name])
    if actual is None:
        return fields
    differing = broken(name, stream_config(name), actual)
    unasked = [each for each in differing if not is_former(name, each)]
    if unasked and not is_ours(actual):
        raise foreign(name, unasked)
    _refuse_unasked("stream", name, unasked, wishes)
    if differing or (name in (KEY, WORKER) and is_ours(actual)):
        limits = starting_values(name)
        unbounded = [each for each in differences(stream_config(name), actual) if each.field in limits]
        differing = (*differing, *(each for each in unbounded if is_former(name, each)))
    return {each.field: each.wanted for each in differing} | fields


async def _update(bus: Bus, name: str, config: Config) -> Config:
    try:
        answer = await bus.request_json(f"$JS.API.STREAM.UPDATE.{name}", config)
    except ApiError as error:
        raise _refused(
            f"stream {name} can't be changed: {error.description}; back it up, delete it, set up again, and restore "
            "its messages",
            name,
        ) from error
    updated: Config = answer["config"]
    return updated


async def _set_up_durable(bus: Bus, durable: Durable) -> str:
    """Creates or changes a durable; returns what was done, or an empty text."""
    fields: dict[str, Any] = {each.field: each.wanted for each in durable.broken}
    if durable.lacking:
        fields["filter_subjects"] = sorted(durable.subjects | durable.delivered)
    if not fields:
        return ""
    try:
        config = await change(bus, durable, fields)
    except ApiError as error:
        raise _refused(
            f"durable {durable.name} can't be changed: {error.description}; delete it and set up again: then it "
            "delivers everything once more",
            durable.name,
        ) from error
    if durable.config is None:
        return f"created, with {len(durable.subjects)} subjects"
    return "; ".join(changes(durable.config, config))


async def _refuse_forgetting(bus: NatsBus, wishes: Wishes) -> None:
    """Refuses a key that is forgotten while its flow is in FLOW: a second start would begin the flow again."""
    kept = wishes.max_age.get(KEY)
    if not kept:
        return
    if kept < LEAST_KEY_AGE:
        raise _refused(f"stream {KEY} can't forget keys after {kept}: give at least {LEAST_KEY_AGE.days} days", KEY)
    if await config_of(bus, TEMPLATE) is None:
        return
    catalog = Catalog(bus)
    await catalog.refresh_from_leader()
    for template in catalog.all():
        if template.keep_forever or (template.retention or timedelta()) + template.deadline > kept:
            raise _refused(
                f"stream {KEY} can't forget keys after {kept}: {template.name}@{template.version} keeps its flows "
                "longer; give a longer time",
                KEY,
            )


def _refuse_unasked(what: str, name: str, differing: Iterable[Difference], wishes: Wishes) -> None:
    differing = tuple(differing)
    if differing and name not in wishes.reset:
        listed = "; ".join(map(str, differing))
        raise _refused(f"{what} {name} was changed: {listed}; {reset_command(name)} mends it", name)


def _require_known(wishes: Wishes, *, streams: Iterable[str], durables: Iterable[str]) -> None:
    streams, durables = sorted(streams), sorted(durables)
    unknown = sorted(
        ((wishes.max_bytes.keys() | wishes.max_age.keys()) - set(streams)) | (wishes.reset - {*streams, *durables})
    )
    if unknown:
        raise _refused(
            f"Handrail has no stream or durable {', '.join(unknown)}: streams are {', '.join(streams)}; durables are "
            f"{', '.join(durables)}",
            unknown[0],
        )


def _refused(text: str, name: str) -> HandrailError:
    return HandrailError(ErrorReason.ERROR_REASON_FOREIGN_STREAM, text, stream=name)
