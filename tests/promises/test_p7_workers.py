"""Workers that are in the way of their flows: too old for a version, or stuck. Nothing hangs for it, and it shows."""

from __future__ import annotations

import threading
import uuid

import grpc
import pytest

from handrail.agents import Agent
from handrail.mesh.streams.workers import live_workers
from handrail.v1 import template_service_pb2 as templates
from handrail.v1.template_service_pb2_grpc import TemplateServiceStub
from payments.v1.payments_pb2 import ChargebackEnriched, ChargebackReceived, Risk, SmallRefundGranted
from tests.promises.conftest import Build
from tests.promises.team import REFUND, Team, claim
from tests.support.agents import template
from tests.support.flows import stored
from tests.support.house import House
from tests.support.people import name_of
from tests.support.waiting import eventually

NEW = template(
    REFUND,
    ("version: 1", "version: 2"),
    ("emits: [payments.v1.ChargebackEnriched]", "emits: [payments.v1.SmallRefundGranted]"),
)
"""The agent `enrichment` has to answer with something else."""
AT_ONCE = ("timeout: 600s\n    retry: {max_attempts: 2", "timeout: 0.5s\n    retry: {max_attempts: 1")


async def test_p7_a_version_that_no_live_worker_fits_is_activated_by_force_alone_and_its_flows_say_so(
    house: House,
) -> None:
    async with house.coordinator() as people, house.working(Team().agents):
        await eventually(
            lambda: live_workers(house.mesh.bus, ["enrichment"]), lambda live: bool(live["enrichment"].states)
        )
        await house.mesh.catalog.put(stored(NEW))
        stub = TemplateServiceStub(people.api.channel)
        request = templates.ActivateTemplateRequest(name="refund", version=2)
        with pytest.raises(grpc.aio.AioRpcError, match="no fitting live worker for enrichment") as refused:
            await stub.ActivateTemplate(request, metadata=people.by("olga"))
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert (await house.mesh.catalog.active("refund")).version == 1

        request.force = True
        forced = await stub.ActivateTemplate(request, metadata=people.by("olga"))
        assert [each.agent for each in forced.unfit_agents] == ["enrichment"]
        assert "may return payments.v1.ChargebackEnriched" in forced.unfit_agents[0].problem

        started = await people.start(claim())
        flow = await people.until(started.flow_id, lambda flow: bool(flow.expectations))
        [owed] = flow.expectations
        assert owed.by_agent == "enrichment"
        assert "no live worker of enrichment fits version 2: start one that does" in owed.what


async def test_an_activation_that_is_asked_for_again_is_answered_as_it_was_whoever_works_now(house: House) -> None:
    async with house.coordinator() as people:
        await house.mesh.catalog.put(stored(NEW))
        stub = TemplateServiceStub(people.api.channel)
        request = templates.ActivateTemplateRequest(name="refund", version=2, request_id=str(uuid.uuid4()))
        first = await stub.ActivateTemplate(request, metadata=people.by("olga"))
        async with house.working(Team().agents):
            await eventually(
                lambda: live_workers(house.mesh.bus, ["enrichment"]), lambda live: bool(live["enrichment"].states)
            )
            again = await stub.ActivateTemplate(request, metadata=people.by("olga"))
            assert again.activation == first.activation
            request.request_id = str(uuid.uuid4())
            with pytest.raises(grpc.aio.AioRpcError, match="no fitting live worker for enrichment"):
                await stub.ActivateTemplate(request, metadata=people.by("olga"))


async def test_p7_what_only_workers_of_the_other_kind_have_waits_past_its_timeout_and_is_done_in_the_end(
    build: Build,
) -> None:
    house, new = await build(), Agent("refunds")

    @new.on(ChargebackReceived)
    async def grant(event: ChargebackReceived) -> SmallRefundGranted:
        return SmallRefundGranted(
            chargeback_id=event.chargeback_id, account_id=event.account_id, amount=event.amount, email="kim@example.com"
        )

    granted = "emits: [payments.v1.SmallRefundGranted, payments.v1.LargeRefundGranted]\n    effect: NONE\n    timeout: "
    soon = template(
        REFUND,
        ("version: 1", "version: 2"),
        ("after: [payments.v1.ChargebackEnriched]", "after: [payments.v1.ChargebackReceived]"),
        (f"{granted}600s", f"{granted}0.5s\n    retry: {{max_attempts: 1}}"),
    )
    await house.mesh.catalog.put(stored(soon))
    async with house.coordinator() as people, house.working(Team().agents):
        request = templates.ActivateTemplateRequest(name="refund", version=2, force=True)
        await TemplateServiceStub(people.api.channel).ActivateTemplate(request, metadata=people.by("olga"))
        started = await people.start(claim())
        # Each of these messages says that the step waits: four times its timeout pass at least.
        waiting = await people.until(started.flow_id, lambda flow: flow.message_count > 8)
        assert name_of(waiting.status) == "RUNNING"
        [run] = [run for run in waiting.step_runs if run.step == "grant"]
        assert (run.attempt, run.last_error) == (1, "")
        async with house.working([new]):
            await people.until_status(started.flow_id, "COMPLETED")


async def test_p7_a_handler_that_never_returns_gives_its_slot_to_other_flows(build: Build) -> None:
    house, team, ends = await build(AT_ONCE), Team(), threading.Event()
    stuck = Agent("enrichment", concurrency=1, threads=1)

    @stuck.on(ChargebackReceived)
    def enrich(event: ChargebackReceived) -> ChargebackEnriched:
        if event.chargeback_id == "hangs":
            ends.wait()
        return ChargebackEnriched(
            chargeback_id=event.chargeback_id,
            account_id=event.account_id,
            amount=event.amount,
            risk=Risk.RISK_LOW,
            email="kim@example.com",
        )

    async with house.coordinator() as people, house.working([stuck, *team.all_but("enrichment")]):
        try:
            hanging = await house.start(claim("hangs"))
            await people.until_status(hanging, "ESCALATED")
            live = await eventually(
                lambda: live_workers(house.mesh.bus, ["enrichment"]), lambda live: bool(live["enrichment"].stuck)
            )
            assert f"flow {hanging}: step enrich, attempt 1" in live["enrichment"].stuck[0]
            await people.until_status(await house.start(claim("good")), "COMPLETED")
        finally:
            ends.set()
        await eventually(
            lambda: live_workers(house.mesh.bus, ["enrichment"]), lambda live: not live["enrichment"].stuck
        )
