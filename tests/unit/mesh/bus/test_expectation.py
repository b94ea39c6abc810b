"""P4: what the headers of a stored message prove about the message before it."""

import pytest

from handrail.mesh.bus.expectation import expecting, last_before
from handrail.mesh.bus.protocol import header_block
from tests.support.hostile import forged_expectations

FLOW = f"flow.refund.{'a' * 32}.>"
OTHER = f"flow.refund.{'b' * 32}.>"
PROOF = header_block(expecting(None, 41, FLOW))
TRACED = header_block(expecting({"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, 41, FLOW))


@pytest.mark.parametrize("block", [PROOF, TRACED], ids=["alone", "traced"])
def test_p4_an_expectation_that_held_names_the_message_before(block: bytes) -> None:
    assert last_before(block, FLOW) == 41
    assert last_before(block, OTHER) == 0


@pytest.mark.parametrize(
    "block", forged_expectations(FLOW, 41, OTHER).values(), ids=forged_expectations(FLOW, 41, OTHER)
)
def test_p4_nothing_but_our_own_form_proves_anything(block: bytes) -> None:
    assert last_before(block, FLOW) == 0
