"""P6: nobody passes for an agent, or for another user of the broker, by what a token says."""

import pytest

from handrail.coordinator.api.claims import caller_of
from handrail.mesh.errors import HandrailError


@pytest.mark.parametrize("agent", ["admin", "viewer", "coordinator"])
def test_p6_a_token_speaks_for_no_user_of_the_broker_but_agents(agent: str) -> None:
    with pytest.raises(HandrailError, match="not a valid agent name"):
        caller_of({"sub": "mallory", "agent": agent})
    assert caller_of({"sub": "mallory", "agent": "ledger"}).agent == "ledger"
