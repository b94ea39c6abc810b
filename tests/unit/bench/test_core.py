"""`bench/core.py` measures whole flows: the messages that it records are those of the benchmark's workloads."""

from __future__ import annotations

import pytest

from bench import core
from handrail.mesh.fold import fold, status
from handrail.mesh.wire.envelope import decode
from handrail.v1.decision_pb2 import FlowStatus


@pytest.mark.parametrize(
    "work, messages, ends",
    [
        ("happy", 4, FlowStatus.FLOW_STATUS_COMPLETED),
        ("compensated", 11, FlowStatus.FLOW_STATUS_COMPENSATED),
        ("approved", 5, FlowStatus.FLOW_STATUS_COMPLETED),
    ],
)
async def test_each_recorded_flow_has_ended_and_each_function_is_measured(
    work: str, messages: int, ends: FlowStatus.ValueType
) -> None:
    recording = await core.record(work, 2)
    for flow in recording.flows:
        history = [decode(each.subject, each.body, sequence=each.sequence, time=each.time) for each in flow]
        assert status(fold(recording.template, history)) == ends
    figures = core.measure(recording, 1)
    assert figures[0] == messages
    assert all(figure > 0 for figure in figures)
