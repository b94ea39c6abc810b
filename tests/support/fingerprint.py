"""The result of a fold as text, equal for equal results in any process.

`python -m tests.support.fingerprint SERVER` folds every flow in a broker and prints the fingerprint of each.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum

from google.protobuf.message import Message

from handrail.mesh.bus import BusSettings, NatsBus
from handrail.mesh.flow import Flow
from handrail.mesh.fold import status
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import GateSpec, StepSpec, Template
from handrail.mesh.wire.envelope import Recorded
from handrail.mesh.wire.subjects import parse
from handrail.v1.decision_pb2 import FlowStatus


def fingerprint(flow: Flow) -> str:
    """Renders everything in a flow, and the order of ordered parts."""
    return json.dumps([FlowStatus.Name(status(flow)), _plain(flow)], indent=1)


def _plain(value: object) -> object:
    match value:
        case Recorded():
            return value.sequence
        case Template():
            return [value.name, value.version]
        case StepSpec() | GateSpec():
            return value.name
        case Message():
            return value.SerializeToString(deterministic=True).hex()
        case Enum():
            return value.name
        case datetime():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Mapping():
            return [[_plain(key), _plain(each)] for key, each in value.items()]
        case Set():
            return sorted(str(_plain(each)) for each in value)
        case tuple() | list():
            return [_plain(each) for each in value]
        case None | bool() | int() | str():
            return value
    assert is_dataclass(value), f"{value!r} is of a kind that no flow consisted of so far"
    return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}


async def _all_flows(server: str) -> dict[str, str]:
    async with await NatsBus.connect(BusSettings(servers=(server,), name="reader")) as bus:
        store = FlowStore(bus, Catalog(bus))
        info = await bus.request_json(f"$JS.API.STREAM.INFO.{FLOW}", {"subjects_filter": "flow.>"})
        subjects = info["state"].get("subjects") or {}
        assert len(subjects) == info["state"]["messages"], "more than one page"
        flows = {parse(subject)[:2] for subject in subjects}
        last = int(info["state"]["last_seq"])
        return {flow_id: fingerprint(await store.load(flow_type, flow_id, up_to=last)) for flow_type, flow_id in flows}


if __name__ == "__main__":
    print(json.dumps(asyncio.run(_all_flows(sys.argv[1]))))
