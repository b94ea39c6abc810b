"""P2, P3, P7, P8 under load and faults: nothing acknowledged is lost, doubled, stuck or wrong. `make chaos` runs the
same for longer.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.chaos.history.run import Conduct, conduct, report
from tests.chaos.history.site import Size


@pytest.mark.timeout(400)
@pytest.mark.parametrize("servers,seconds", [(3, 75), (1, 45)])
async def test_p2_p3_p7_p8_no_fault_loses_doubles_hangs_or_corrupts_a_flow(
    servers: int, seconds: int, tmp_path: Path
) -> None:
    size = Size(servers=servers, timeout=timedelta(seconds=8), ack_wait=timedelta(seconds=4))
    how = Conduct(
        seed=servers,
        length=timedelta(seconds=seconds),
        size=size,
        rate=5.0,
        pause=(1.0, 3.0),
        settle=timedelta(seconds=100),
    )
    result = await conduct(how, tmp_path, print)
    assert not result.findings, "\n".join(report(how, result))
    # Nothing is found where nothing is done.
    assert len(result.check.accounts) >= 20, "\n".join(report(how, result))
    assert len(result.faults) >= 3
