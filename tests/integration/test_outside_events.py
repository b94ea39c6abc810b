"""`handrail flow publish`: an answer that comes from outside is stored once, in the name of the step's agent."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from handrail.mesh.wire.ids import flow_id_from_key
from tests.support import flows
from tests.support.api import running_api
from tests.support.dev import chargeback, handrail_process
from tests.support.mesh import Mesh

FLOW = flow_id_from_key("refund", "CB-1")
ANSWER = json.dumps(
    {
        "chargebackId": "cb-1",
        "accountId": "acc-1",
        "amount": {"currencyCode": "EUR", "units": "250"},
        "risk": "RISK_LOW",
        "email": "kim@example.com",
    }
)

Run = Callable[..., Awaitable[subprocess.CompletedProcess[str]]]


@pytest.fixture
async def run(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Run]:
    """Runs `handrail flow` as an agent, beside a coordinator with a flow that waits for the step enrich."""
    await mesh.put(flows.template(attempts=2))
    async with running_api(mesh.bus, tmp_path) as api:

        async def run(*words: str, agent: str = "enrichment") -> subprocess.CompletedProcess[str]:
            token = api.token("hook", "operator", agent=agent)
            env = {"HANDRAIL_ADDRESS": api.address, "HANDRAIL_TOKEN": token}
            return await asyncio.to_thread(handrail_process, "flow", *words, env=env)

        begun = await run("start", "refund", "--data", chargeback(250, id_="cb-1"), "--key", "CB-1")
        assert begun.stdout == f"{FLOW}\n"
        yield run


async def test_p3_an_answer_from_outside_is_stored_once(run: Run) -> None:
    first = await run("publish", "refund/CB-1", "enrich", "--data", ANSWER)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout.startswith("payments.v1.ChargebackEnriched is stored as event, at sequence ")
    again = await run("publish", "refund/CB-1", "enrich", "--data", ANSWER)
    assert again.stdout == first.stdout.replace("is stored", "was stored before")
    other = await run("publish", "refund/CB-1", "enrich", "--data", ANSWER.replace("250", "999"))
    assert (other.returncode, "(DIFFERENT_ANSWER)" in other.stderr) == (1, True)


async def test_p6_nobody_answers_for_another_agent(run: Run) -> None:
    stranger = await run("publish", "refund/CB-1", "enrich", "--data", ANSWER, agent="notification")
    assert (stranger.returncode, "(WRONG_AGENT)" in stranger.stderr) == (5, True)
    person = await run("publish", "refund/CB-1", "enrich", "--data", ANSWER, agent="")
    assert (person.returncode, 'a token with an "agent" claim' in person.stderr) == (5, True)


async def test_a_failure_from_outside_counts_as_one(run: Run) -> None:
    failed = await run("publish", "refund/CB-1", "enrich", "--failed", "the bank said no", "--no-retry")
    assert failed.stdout.startswith("handrail.v1.StepFailed is stored as failure, at sequence ")
    shown = json.loads((await run("show", "refund/CB-1", "--output", "json")).stdout)
    assert shown["stepRuns"][0]["lastError"] == "Outside: the bank said no"


@pytest.mark.parametrize(
    "words, code, said",
    [
        (["enrihc", "--done"], 4, 'waits for no step "enrihc"; did you mean enrich?'),
        (["enrich"], 2, "one of the arguments --data --done --failed is required"),
        (["enrich", "--data", '{"acountId": "a"}'], 1, "did you mean accountId?"),
        (["enrich", "--data", "{}", "--type", "payments.v1.RefundPaid"], 5, "it emits payments.v1.ChargebackEnriched"),
        (["enrich", "--done", "--root", "0"], 4, "step enrich has no run with the root 0"),
    ],
)
async def test_what_can_not_be_published_is_told_in_one_line(run: Run, words: list[str], code: int, said: str) -> None:
    refused = await run("publish", "refund/CB-1", *words)
    assert (refused.returncode, refused.stdout) == (code, "")
    assert said in refused.stderr
