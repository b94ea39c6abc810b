"""P6: a delegation ends with the token that recorded it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from handrail.coordinator.api.delegation_log import is_revoked
from handrail.coordinator.api.tokens.revocations import NOTHING, Revocations
from handrail.mesh.wire.envelope import timestamp
from handrail.v1.delegation_service_pb2 import Delegation

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
PASSED_ON = Delegation(delegator="Lisa", delegate="dora", token_id="t1", token_issue_time=timestamp(NOW))


@pytest.mark.parametrize(
    "revocations, revoked",
    [
        (NOTHING, False),
        (Revocations(frozenset({"t1"}), {}), True),
        (Revocations(frozenset({"t2"}), {}), False),
        (Revocations(frozenset(), {"lisa": NOW + HOUR}), True),
        (Revocations(frozenset(), {"lisa": NOW - HOUR}), False),
        (Revocations(frozenset(), {"dora": NOW + HOUR}), False),
    ],
)
def test_p6_a_delegation_ends_with_its_token(revocations: Revocations, revoked: bool) -> None:
    assert is_revoked(PASSED_ON, revocations) is revoked


def test_p6_a_delegation_by_a_token_without_a_time_ends_with_its_subject() -> None:
    undated = Delegation(delegator="lisa", delegate="dora")
    assert is_revoked(undated, Revocations(frozenset(), {"lisa": NOW - HOUR}))
