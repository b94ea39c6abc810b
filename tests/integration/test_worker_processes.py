"""What callers send is worked on in processes that end at a limit, in turns, while the event loop goes on."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from handrail.coordinator.workers.pool import MOST_OF_ONE, MOST_WAITING, WorkerPool
from handrail.coordinator.workers.process import Limits
from handrail.coordinator.workers.templates import prepared_template
from handrail.mesh.errors import HandrailError, TemplateRefused
from handrail.v1.template_service_pb2 import CheckTemplateRequest, CheckTemplateResponse
from tests.attacks.conditions import contracts, dear_rules, template
from tests.support.shop import set_of

SMALL = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(contracts()))
COSTLY = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(dear_rules()))


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, Limits(time=timedelta(seconds=1)))
    yield pool
    await pool.close()


async def codes(pool: WorkerPool, request: CheckTemplateRequest, caller: str = "anna") -> list[str]:
    (response,) = await pool.run("check", request.SerializeToString(), caller=caller)
    return [finding.code for finding in CheckTemplateResponse.FromString(response).findings]


def pid(pool: WorkerPool) -> int:
    process = pool._processes[0]._process
    assert process is not None
    return process.pid


async def test_a_template_is_checked_in_another_process(pool: WorkerPool) -> None:
    pool.warm()
    assert await codes(pool, SMALL) == []
    wrong = CheckTemplateRequest(template=template("event.f9 > 1"), descriptors=SMALL.descriptors)
    assert await codes(pool, wrong) == ["HR027"]
    assert pid(pool) != os.getpid()


async def test_p7_a_job_that_takes_too_long_is_ended_and_the_next_one_is_done(pool: WorkerPool) -> None:
    with pytest.raises(HandrailError, match="more than 1 s of processor time") as caught:
        await codes(pool, COSTLY)
    assert caught.value.reason_name == "LIMIT_EXCEEDED"
    assert caught.value.metadata == {"limit": "time"}
    assert await codes(pool, SMALL) == []


async def test_a_job_that_takes_too_much_memory_is_ended_and_the_next_one_is_done() -> None:
    pool = WorkerPool(1, Limits(time=timedelta(seconds=20), memory=24 << 20))
    large = CheckTemplateRequest(template=template("event.f0 > 1"), descriptors=set_of(contracts(4000, 10)))
    with pytest.raises(HandrailError, match="more than 24 MiB of memory") as caught:
        await codes(pool, large)
    assert caught.value.metadata == {"limit": "memory"}
    assert await codes(pool, SMALL) == []
    await pool.close()


async def test_p7_callers_take_turns(pool: WorkerPool) -> None:
    done: list[str] = []

    async def call(caller: str, request: CheckTemplateRequest) -> None:
        try:
            await codes(pool, request, caller)
        except HandrailError:
            pass
        finally:
            done.append(caller)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(4):
            tasks.create_task(call("mallory", COSTLY))
        await asyncio.sleep(0)  # they wait already when anna comes
        tasks.create_task(call("anna", SMALL))
    assert done.index("anna") <= 2, "at most one that began, and one whose turn it was"


async def test_a_queue_is_bounded_for_each_caller_and_for_all(pool: WorkerPool) -> None:
    ended: list[str] = []

    async def call(caller: str) -> None:
        try:
            await codes(pool, SMALL, caller)
        except HandrailError as error:
            ended.append(error.metadata["limit"])

    async with asyncio.TaskGroup() as tasks:
        for _ in range(MOST_OF_ONE + 3):
            tasks.create_task(call("mallory"))
        for number in range(MOST_WAITING):
            tasks.create_task(call(f"caller-{number}"))
    assert ended.count("waiting_of_one_caller") == 3
    assert ended.count("waiting") == MOST_OF_ONE


async def test_a_caller_that_gives_up_leaves_the_queue(pool: WorkerPool) -> None:
    first = asyncio.create_task(codes(pool, SMALL))
    given_up = [asyncio.create_task(codes(pool, COSTLY, f"caller-{number}")) for number in range(5)]
    await asyncio.sleep(0)
    for task in given_up:
        task.cancel()
    assert await first == []
    process = pid(pool)
    assert await codes(pool, SMALL) == []
    assert pid(pool) == process, "none of the costly jobs was begun: it would have been killed"


async def test_a_process_that_is_killed_is_replaced(pool: WorkerPool) -> None:
    assert await codes(pool, SMALL) == []
    os.kill(pid(pool), signal.SIGKILL)
    with pytest.raises(HandrailError, match="MiB of memory"):
        await codes(pool, SMALL)
    assert await codes(pool, SMALL) == []


async def test_a_worker_knows_no_secrets(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HANDRAIL_NATS_PASSWORD", "secret")
    assert await codes(pool, SMALL) == []
    environment = await asyncio.to_thread(Path(f"/proc/{pid(pool)}/environ").read_bytes)
    assert environment
    assert b"HANDRAIL" not in environment


async def test_what_is_stored_is_prepared_with_the_check(pool: WorkerPool) -> None:
    findings, stored = await prepared_template(pool, SMALL.template, SMALL.descriptors, caller="anna")
    assert list(findings) == []
    assert len(stored.digest) == 64
    assert stored.descriptors
    with pytest.raises(TemplateRefused, match="busy"):
        await prepared_template(pool, template("event.f9 > 1"), SMALL.descriptors, caller="anna")
    with pytest.raises(HandrailError, match="the descriptor set can't be used") as caught:
        await prepared_template(pool, SMALL.template, b"\xff", caller="anna")
    assert caught.value.reason_name == "MALFORMED"


async def test_after_the_end_nothing_is_taken(pool: WorkerPool) -> None:
    assert await codes(pool, SMALL) == []
    process = pid(pool)
    await pool.close()
    with pytest.raises(HandrailError, match="draining"):
        await codes(pool, SMALL)
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)
