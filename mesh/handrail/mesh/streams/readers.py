"""The durables of readers. Set-up creates them; a reader moves its own to any sequence, and has no other say in it.

A reader acknowledges nothing: it keeps the last sequence that it handled beside its results, and goes on behind that.
See `reading` for how, and docs/readers.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from handrail.mesh.bus import ApiError, Bus
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import Reader, reader_durable
from handrail.mesh.streams.streams import FLOW
from handrail.v1.error_reason_pb2 import ErrorReason

EVERYTHING = "flow.>"
"""All subjects of FLOW."""

_WAITING = 64
"""Open requests. One process of a reader has one; each takes memory of the broker."""


async def ensure_reader(bus: Bus, reader: Reader) -> str:
    """Does what `ensure_reading` does, for the flow types of a reader."""
    return await ensure_reading(bus, reader.name, reader.filters)


async def ensure_reading(bus: Bus, name: str, filters: Iterable[str]) -> str:
    """Creates the durable of a reader of this name, or gives it these filters. Returns what was done, for people; an
    empty text if there was nothing to do. Idempotent.

    Raises FOREIGN_STREAM if there is a durable of this name that needs acknowledgements, and the errors of
    `Bus.request_json`.
    """
    durable = reader_durable(name)
    wanted = sorted(filters)
    config = await _config_of(bus, durable)
    if config is not None and config["ack_policy"] != "none":
        raise HandrailError(
            ErrorReason.ERROR_REASON_FOREIGN_STREAM,
            f"durable {durable} exists and is no reader's: it needs acknowledgements; delete it, then run this again",
            stream=FLOW,
        )
    if config is not None and sorted(_filters_of(config)) == wanted:
        return ""
    config = {**(config or _new(durable)), "filter_subjects": wanted}
    config.pop("filter_subject", None)
    await bus.request_json(f"$JS.API.CONSUMER.CREATE.{FLOW}.{durable}", {"stream_name": FLOW, "config": config})
    return f"durable {durable}: delivers {', '.join(wanted)}"


def require_everything(durable: str, config: dict[str, Any]) -> None:
    """Raises FOREIGN_STREAM if a durable with this configuration does not deliver every message of FLOW as it is."""
    if config["ack_policy"] != "none":
        wrong = "needs acknowledgements: delete it, then run handrail admin setup"
    elif _filters_of(config) != [EVERYTHING]:
        wrong = f"does not deliver exactly {EVERYTHING}: run handrail admin setup"
    elif config.get("headers_only"):
        wrong = "delivers messages without their bodies: delete it, then run handrail admin setup"
    else:
        return
    text = f"durable {durable} {wrong}"
    raise HandrailError(ErrorReason.ERROR_REASON_FOREIGN_STREAM, text, stream=FLOW)


def _new(durable: str) -> dict[str, Any]:
    return {
        "durable_name": durable,
        "deliver_policy": "all",
        "ack_policy": "none",
        "max_waiting": _WAITING,
        "metadata": {"handrail": "1"},
    }


async def _config_of(bus: Bus, durable: str) -> dict[str, Any] | None:
    try:
        info = await bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{durable}")
    except ApiError as error:
        if error.code == CONSUMER_NOT_FOUND:
            return None
        raise
    config: dict[str, Any] = info["config"]
    return config


def _filters_of(config: dict[str, Any]) -> list[str]:
    single = config.get("filter_subject")
    return config.get("filter_subjects") or ([single] if single else [])
