"""Provisions the streams: one idempotent call at start-up creates, checks and upgrades them."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handrail.mesh.bus import ApiError, NatsBus
from handrail.mesh.bus.api import STREAM_NAME_IN_USE, STREAM_NOT_FOUND, SUBJECTS_OVERLAP
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.streams import FLOW, IRREPLACEABLE, Config, stream_configs
from handrail.v1.error_reason_pb2 import ErrorReason

_logger = logging.getLogger(__name__)

NEEDED_VERSION = "2.14"
NEEDED_API_LEVEL = 4
"""The API level that JetStream reports since that version (2.12: 3, 2.14: 4, 2.15: 5)."""

_OWNER = "handrail"
"""The metadata key that marks a stream as Handrail's."""


@dataclass(frozen=True, slots=True)
class FlowLimits:
    """Limits of the FLOW stream, beyond which publishers get STREAM_FULL. None: unchanged, and unlimited at first."""

    max_bytes: int | None = None
    max_messages: int | None = None


async def ensure_streams(bus: NatsBus, *, replicas: int = 1, limits: FlowLimits | None = None) -> None:
    """Creates missing streams, upgrades Handrail's own, refuses foreign ones.

    Raises BROKER_TOO_OLD, FOREIGN_STREAM with the differences, STREAM_LOST if FLOW or TEMPLATE is gone, and the errors
    of `Bus.request_json`.
    """
    await require_server(bus)
    await _refuse_a_loss(bus)
    for name, wanted in stream_configs().items():
        config = {"name": name, **wanted, "num_replicas": replicas}
        if name == FLOW and limits is not None:
            config |= _limits(limits)
        await _ensure(bus, config)


async def what_is_wrong(bus: NatsBus) -> dict[str, str]:
    """The missing or misconfigured streams: name -> what differs; an empty text for a missing stream.

    Raises the errors of `Bus.request_json`.
    """
    wrong: dict[str, str] = {}
    for name, wanted in stream_configs().items():
        actual = await _config_of(bus, name)
        if actual is None:
            wrong[name] = ""
        elif differing := differences(wanted, actual):
            wrong[name] = f"stream {name} is misconfigured ({', '.join(differing)}): restart a coordinator"
    return wrong


async def ensure_stream(bus: NatsBus, name: str, *, like: str) -> None:
    """Creates one stream with as many replicas as another. Raises the errors of `ensure_streams`."""
    other = await _config_of(bus, like)
    replicas = int(other["num_replicas"]) if other else 1
    await _ensure(bus, {"name": name, **stream_configs()[name], "num_replicas": replicas})


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


def differences(wanted: Config, actual: Config) -> dict[str, tuple[Any, Any]]:
    """The differences: field -> (wanted, actual). The server omits fields that are off or empty."""
    return {
        field: (value, actual.get(field))
        for field, value in wanted.items()
        if _normal(value) != _normal(actual.get(field))
    }


async def _ensure(bus: NatsBus, wanted: dict[str, Any]) -> None:
    name = wanted["name"]
    actual = await _config_of(bus, name)
    if actual is None:
        actual = await _create(bus, wanted)
    differing = differences(wanted, actual)
    if not differing:
        return
    if not _is_ours(actual, differing):
        raise _foreign(name, differing)
    try:
        await bus.request_json(f"$JS.API.STREAM.UPDATE.{name}", {**actual, **wanted, "metadata": actual["metadata"]})
    except ApiError as error:
        raise _foreign(name, differing, error.description) from error
    _logger.info("stream %s upgraded: %s", name, ", ".join(differing))


def _is_ours(actual: Config, differing: Iterable[str]) -> bool:
    """Whether Handrail created a stream, or somebody created it for Handrail."""
    return _OWNER in actual.get("metadata", {}) or set(differing) <= {"num_replicas", "max_bytes", "max_msgs"}


async def _refuse_a_loss(bus: NatsBus) -> None:
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


async def _create(bus: NatsBus, wanted: dict[str, Any]) -> Config:
    name = wanted["name"]
    try:
        created = await bus.request_json(f"$JS.API.STREAM.CREATE.{name}", {**wanted, "metadata": {_OWNER: "1"}})
    except ApiError as error:
        if error.code == SUBJECTS_OVERLAP:
            raise await _taken(bus, name, wanted["subjects"]) from error
        if error.code != STREAM_NAME_IN_USE:
            raise
        # Another process was faster.
        return await _config_of(bus, name) or {}
    _logger.info("stream %s created", name)
    config: Config = created["config"]
    return config


def _holds_ours(name: str, info: dict[str, Any]) -> bool:
    config: Config = info["config"]
    return bool(info["state"]["messages"]) and _is_ours(config, differences(stream_configs()[name], config))


async def _config_of(bus: NatsBus, name: str) -> Config | None:
    info = await _info_of(bus, name)
    return None if info is None else info["config"]


async def _info_of(bus: NatsBus, name: str) -> dict[str, Any] | None:
    try:
        return await bus.request_json(f"$JS.API.STREAM.INFO.{name}")
    except ApiError as error:
        if error.code == STREAM_NOT_FOUND:
            return None
        raise


async def _taken(bus: NatsBus, name: str, subjects: Sequence[str]) -> HandrailError:
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


def _limits(limits: FlowLimits) -> dict[str, int]:
    given = {"max_bytes": limits.max_bytes, "max_msgs": limits.max_messages}
    return {field: value for field, value in given.items() if value is not None}


def _normal(value: Any) -> Any:
    if isinstance(value, list):
        return sorted(value) or None
    return value or None


def _foreign(name: str, differing: Mapping[str, tuple[Any, Any]], detail: str = "") -> HandrailError:
    listed = "; ".join(f"{field} is {actual!r}, not {wanted!r}" for field, (wanted, actual) in differing.items())
    return HandrailError(
        ErrorReason.ERROR_REASON_FOREIGN_STREAM,
        f"stream {name} exists and is not Handrail's: {listed}{f' ({detail})' if detail else ''}; "
        "move it away, or give Handrail an account of its own",
        stream=name,
        fields=",".join(differing),
    )
