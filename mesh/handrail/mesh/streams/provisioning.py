"""Provisions the streams at run time: creates what is missing, and updates nothing.

Updates are for `set_up`, which a person runs (`handrail admin setup`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from handrail.mesh.bus import ApiError, Bus, NatsBus
from handrail.mesh.bus.api import STREAM_NAME_IN_USE, STREAM_NOT_FOUND, SUBJECTS_OVERLAP
from handrail.mesh.bus.publish_ack import NO_RESOURCES
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.promised import Difference, broken, is_former
from handrail.mesh.streams.streams import FLOW, IRREPLACEABLE, Config, stream_config, stream_configs
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

NEEDED_VERSION = "2.14"
NEEDED_API_LEVEL = 4
"""The API level that JetStream reports since that version (2.12: 3, 2.14: 4, 2.15: 5)."""

_OWNER = "handrail"
"""The metadata key that marks a stream as Handrail's."""

FORMAT = "1"
"""Its value: raised when a release stores what earlier ones would misread. They refuse to start then."""


async def ensure_streams(bus: NatsBus, *, replicas: int | None = None) -> None:
    """Creates missing streams, and checks the others. It changes none.

    New streams have as many `replicas`; None: as many as FLOW, and 1 at first. Raises BROKER_TOO_OLD, FOREIGN_STREAM if
    the configuration of a stream breaks a promise, STREAM_LOST if FLOW or TEMPLATE is gone, and the errors of
    `Bus.request_json`.
    """
    await require_server(bus)
    await refuse_a_loss(bus)
    for name in stream_configs():
        await _ensure(bus, name, replicas)
    flow = await config_of(bus, FLOW)
    if flow is not None and replicas is not None and flow["num_replicas"] != replicas:
        _logger.warning(
            "stream FLOW has %d replicas, not %d: `handrail admin setup --replicas %d` changes it",
            *(flow["num_replicas"], replicas, replicas),
        )


async def ensure_stream(bus: Bus, name: str, *, like: str) -> None:
    """Creates one stream with as many replicas as another. Raises the errors of `ensure_streams`."""
    other = await config_of(bus, like)
    await _ensure(bus, name, int(other["num_replicas"]) if other else 1)


async def actual_configs(bus: Bus, names: Iterable[str]) -> dict[str, Config | None]:
    """The configurations of these streams; None for a missing one. Raises the errors of `Bus.request_json`."""
    return {name: await config_of(bus, name) for name in names}


async def config_of(bus: Bus, name: str) -> Config | None:
    """The configuration of a stream; None if it is missing. Raises the errors of `Bus.request_json`."""
    info = await _info_of(bus, name)
    return None if info is None else info["config"]


def why_broken(name: str, actual: Config) -> str:
    """Why the configuration of a stream breaks a promise, and what mends it; empty if it breaks none."""
    differing = broken(name, stream_config(name), actual)
    return _why_newer(name, actual) or (_misconfigured(name, actual, differing).text if differing else "")


async def require_server(bus: NatsBus) -> None:
    """Raises BROKER_TOO_OLD unless the server supports everything that Handrail uses."""
    info = await bus.request_json("$JS.API.INFO")
    check_level(int(info.get("api", {}).get("level", 0)), bus.server_version)


def check_level(level: int, version: str) -> None:
    """Raises BROKER_TOO_OLD for an API level below the required one."""
    if level < NEEDED_API_LEVEL:
        raise HandrailError(
            ErrorReason.ERROR_REASON_BROKER_TOO_OLD,
            f"nats-server {version} (JetStream API level {level}) is too old: Handrail needs {NEEDED_VERSION} or newer "
            f"(level {NEEDED_API_LEVEL})",
            version=version,
            needed=NEEDED_VERSION,
        )


def is_ours(actual: Config) -> bool:
    """Whether Handrail created a stream."""
    return _OWNER in actual.get("metadata", {})


async def refuse_a_loss(bus: Bus) -> None:
    """Raises STREAM_LOST if one of FLOW and TEMPLATE is missing and the other holds messages: they exist together."""
    infos = {name: await _info_of(bus, name) for name in sorted(IRREPLACEABLE)}
    gone = [name for name, info in infos.items() if info is None]
    kept = [name for name, info in infos.items() if info is not None and _holds_ours(name, info)]
    if gone and kept:
        raise HandrailError(
            ErrorReason.ERROR_REASON_STREAM_LOST,
            f"stream {gone[0]} is gone, but {kept[0]} is not: restore {gone[0]} from a backup, or delete {kept[0]} too "
            "to start empty",
            stream=gone[0],
        )


async def create(bus: Bus, config: Config) -> Config:
    """Creates a stream, unless another process is faster; returns the configuration of the one that is there.

    Raises FOREIGN_STREAM if another stream takes its subjects, STREAM_FULL if the broker has no room for its limit, and
    the errors of `Bus.request_json`.
    """
    name = str(config["name"])
    try:
        created = await bus.request_json(f"$JS.API.STREAM.CREATE.{name}", {**config, "metadata": {_OWNER: FORMAT}})
    except ApiError as error:
        if error.code == SUBJECTS_OVERLAP:
            raise await _taken(bus, name, config["subjects"]) from error
        if error.code in NO_RESOURCES:
            raise _no_room(name, config, error) from error
        if error.code != STREAM_NAME_IN_USE:
            raise
        return await config_of(bus, name) or {}
    _logger.info("stream %s created", name)
    made: Config = created["config"]
    return made


def foreign(name: str, differing: Iterable[Difference]) -> HandrailError:
    """The error for a stream that Handrail needs and did not create, and that has another configuration."""
    remedy = "move it away, or give Handrail an account of its own"
    return _refused(name, differing, "exists and is not Handrail's", remedy)


def _why_newer(name: str, actual: Config) -> str:
    """Why this release can't work with a stream that a newer one made; empty if it can."""
    made = str(actual.get("metadata", {}).get(_OWNER, FORMAT))
    if made.isdecimal() and int(made) <= int(FORMAT):
        return ""
    return (
        f"stream {name} was made by a newer release of Handrail (metadata {_OWNER}={made[:20]}, and this one knows "
        f"{FORMAT}): upgrade this process"
    )


async def _ensure(bus: Bus, name: str, replicas: int | None) -> None:
    wanted = stream_config(name)
    actual = await config_of(bus, name)
    if actual is None:
        if replicas is None:
            flow = await config_of(bus, FLOW)
            replicas = int(flow["num_replicas"]) if flow is not None else 1
        actual = await create(bus, {"name": name, **wanted, "num_replicas": replicas})
    if why := _why_newer(name, actual):
        raise HandrailError(ErrorReason.ERROR_REASON_FOREIGN_STREAM, why, stream=name)
    if differing := broken(name, wanted, actual):
        raise _misconfigured(name, actual, differing)


def _misconfigured(name: str, actual: Config, differing: Sequence[Difference]) -> HandrailError:
    if not is_ours(actual):
        return foreign(name, differing)
    command = "`handrail admin setup`" if all(is_former(name, each) for each in differing) else reset_command(name)
    return _refused(name, differing, "is not configured as Handrail needs it", f"{command} mends it")


def reset_command(name: str) -> str:
    """The command that configures a stream or durable again as Handrail needs it."""
    return f"`handrail admin setup --reset {name}`"


def _refused(name: str, differing: Iterable[Difference], what: str, remedy: str) -> HandrailError:
    differing = tuple(differing)
    return HandrailError(
        ErrorReason.ERROR_REASON_FOREIGN_STREAM,
        f"stream {name} {what}: {'; '.join(map(str, differing))}; {remedy}",
        stream=name,
        fields=",".join(each.field for each in differing),
    )


def _holds_ours(name: str, info: Mapping[str, Any]) -> bool:
    config: Config = info["config"]
    return bool(info["state"]["messages"]) and (is_ours(config) or not broken(name, stream_config(name), config))


def _no_room(name: str, config: Config, error: ApiError) -> HandrailError:
    return HandrailError(
        ErrorReason.ERROR_REASON_STREAM_FULL,
        f"stream {name} can't be created: {error.description}; the broker reserves its limit of {config['max_bytes']} "
        f"bytes: give the broker more room, or set another limit (`handrail admin setup --max-bytes {name}=SIZE`)",
        stream=name,
    )


async def _info_of(bus: Bus, name: str) -> dict[str, Any] | None:
    try:
        return await bus.request_json(f"$JS.API.STREAM.INFO.{name}")
    except ApiError as error:
        if error.code == STREAM_NOT_FOUND:
            return None
        raise


async def _taken(bus: Bus, name: str, subjects: Sequence[str]) -> HandrailError:
    others: set[str] = set()
    for subject in subjects:
        answer = await bus.request_json("$JS.API.STREAM.NAMES", {"subject": subject})
        others.update(answer.get("streams") or ())
    listed = ", ".join(sorted(others - {name}))
    return HandrailError(
        ErrorReason.ERROR_REASON_FOREIGN_STREAM,
        f"stream {name} can't be created: stream {listed} already takes {', '.join(subjects)}; "
        "move it away, or give Handrail an account of its own",
        stream=listed,
    )
