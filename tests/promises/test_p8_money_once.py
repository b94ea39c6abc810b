"""P8: a ledger that is killed around its commit moves the money once, or leaves nothing moved where the flow was
halted. Real processes, real SIGKILL, the demo's ledger with its book in SQLite.
"""

from __future__ import annotations

import signal
import subprocess
from datetime import timedelta

import pytest

from demos.payments.book import Book
from demos.payments.settings import LEDGER
from handrail.v1.flow_service_pb2 import Flow, StepRun, StepRunStatus
from tests.promises.conftest import Build
from tests.promises.team import Team, claim
from tests.support.house import House
from tests.support.people import People
from tests.support.waiting import until

IMPATIENT = ("timeout: 601s\n    retry: {max_attempts: 2", "timeout: 1s\n    retry: {max_attempts: 9")
"""The coordinator tries `pay` again long before the broker would deliver it again."""

PAID, PAID_AND_REVERSED = ["EUR 250.00"], ["EUR 250.00", "EUR -250.00"]


class Ledger:
    """The ledger's processes, the moments at which they are killed, and the book."""

    def __init__(self, house: House, *crashes: str) -> None:
        self._house = house
        self._file = house.folder / "book.sqlite"
        self._crashes = house.folder / "crashes"
        self._crashes.write_text("\n".join(crashes))
        self._started: list[subprocess.Popen[bytes]] = []

    async def start(self, number: int = 1) -> None:
        """Starts this many processes and waits until they accept deliveries."""
        for _ in range(number):
            environment = {"CRASHES": str(self._crashes), LEDGER: str(self._file)}
            self._started.append(self._house.process("ledger", "tests.promises.crashing:ledger", **environment))
        wanted = len(self._started)
        await until(lambda: self._house.log("ledger").read_text().count("agent ledger is ready") == wanted)

    async def until_killed(self, number: int = 1) -> None:
        """Waits until this many processes have ended."""
        await until(lambda: self.killed == number)

    @property
    def killed(self) -> int:
        """How many processes are gone; all of them by SIGKILL."""
        codes = [code for process in self._started if (code := process.poll()) is not None]
        assert codes == [-signal.SIGKILL] * len(codes)
        return len(codes)

    @property
    def moved(self) -> list[str]:
        """What went to the customer and back, in order."""
        return [str(transfer.amount) for transfer in Book(self._file).transfers()] if self._file.exists() else []


def pay_of(flow: Flow) -> StepRun:
    [pay] = [run for run in flow.step_runs if run.step == "pay"]
    return pay


async def until_owed_by_ledger(people: People, flow_id: str) -> None:
    await people.until(flow_id, lambda flow: [owed.by_agent for owed in flow.expectations] == ["ledger"])


async def test_p8_a_payment_delivered_again_after_the_crash_moves_money_once(house: House) -> None:
    ledger, team = Ledger(house, "after pay"), Team()
    await house.mesh.set_ack_wait("ledger", timedelta(seconds=1))
    await ledger.start(2)
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "COMPLETED")
    assert ledger.killed == 1
    assert ledger.moved == PAID
    assert pay_of(flow).attempt == 1
    assert team.told == [flow_id]


async def test_p8_a_payment_retried_after_the_crash_moves_money_once(build: Build) -> None:
    house, team = await build(IMPATIENT), Team()
    ledger = Ledger(house, "after pay")
    await ledger.start(2)
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        flow = await people.until_status(flow_id, "COMPLETED")
    assert ledger.killed == 1
    assert ledger.moved == PAID
    assert pay_of(flow).attempt > 1
    assert team.told == [flow_id]


@pytest.mark.parametrize("moment", ["before pay", "after pay"])
async def test_p8_a_payment_halted_after_the_crash_is_undone_or_was_never_made(house: House, moment: str) -> None:
    ledger, team = Ledger(house, moment), Team()
    await house.mesh.set_ack_wait("ledger", timedelta(seconds=1))
    await ledger.start()
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        await ledger.until_killed()
        flow = await people.compensate(flow_id)
        assert [owed.by_agent for owed in flow.expectations] == ["ledger"], "whether it paid is not known yet"
        await ledger.start()
        await people.until_status(flow_id, "COMPENSATED")
    assert ledger.moved == PAID_AND_REVERSED
    assert team.told == []


async def test_p8_a_payment_crashed_retried_crashed_and_halted_is_undone_once(build: Build) -> None:
    house, team = await build(IMPATIENT), Team()
    ledger = Ledger(house, "after pay", "after pay")
    await ledger.start(2)
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        await ledger.until_killed(2)
        await people.compensate(flow_id)
        await ledger.start()
        await people.until_status(flow_id, "COMPENSATED")
    assert ledger.moved == PAID_AND_REVERSED
    assert team.told == []


async def test_p8_a_reversal_that_crashes_takes_the_money_back_once(house: House) -> None:
    ledger, team = Ledger(house, "after reverse"), Team()
    await house.mesh.set_ack_wait("ledger", timedelta(seconds=1))
    await ledger.start(2)
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        await people.until_status(flow_id, "COMPLETED")
        await people.compensate(flow_id)
        await people.until_status(flow_id, "COMPENSATED")
    assert ledger.killed == 1
    assert ledger.moved == PAID_AND_REVERSED


async def test_p8_a_payment_halted_before_it_began_is_not_made(house: House) -> None:
    ledger, team = Ledger(house), Team()
    async with house.coordinator() as people, house.working(team.all_but("ledger")):
        flow_id = await house.start(claim())
        await until_owed_by_ledger(people, flow_id)
        await people.compensate(flow_id)
        await ledger.start()
        flow = await people.until_status(flow_id, "COMPENSATED")
    assert pay_of(flow).status == StepRunStatus.STEP_RUN_STATUS_NOT_STARTED
    assert ledger.moved == []
