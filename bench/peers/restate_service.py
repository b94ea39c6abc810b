"""The flows as a Restate workflow. It runs in the peers' environment, served by granian."""

from __future__ import annotations

from typing import TypedDict

import restate
from restate import RunOptions, Workflow, WorkflowContext, WorkflowSharedContext
from restate.exceptions import TerminalError

from bench.peers import PADDING


class Request(TypedDict):
    """Which workload to run."""

    work: str


class Report(TypedDict):
    """What a flow did: its steps, and those it undid, each in order."""

    done: list[str]
    undone: list[str]


def step(name: str, flow_id: str) -> dict[str, str]:
    """A step that does nothing."""
    return {"step": name, "flow": flow_id, "data": PADDING}


def failing(name: str, flow_id: str) -> dict[str, str]:
    """A step that fails for good."""
    raise TerminalError("as planned")


flow = Workflow("Flow")


@flow.main()
async def run(ctx: WorkflowContext, request: Request) -> Report:
    """One flow."""
    report = Report(done=[], undone=[])
    if request["work"] == "approved":
        await ctx.run_typed("detect", step, RunOptions(), "detect", ctx.key())
        await ctx.promise("approval", type_hint=bool).value()
        return Report(done=["detect"], undone=[])
    last = failing if request["work"] == "compensated" else step
    try:
        for name, action in (("detect", step), ("enrich", step), ("notify", last)):
            await ctx.run_typed(name, action, RunOptions(), name, ctx.key())
            report["done"].append(name)
    except TerminalError:
        for name in reversed(report["done"]):
            await ctx.run_typed(f"undo-{name}", step, RunOptions(), name, ctx.key())
            report["undone"].append(name)
    return report


@flow.handler()
async def approve(ctx: WorkflowSharedContext, yes: bool) -> None:
    """A person's answer."""
    await ctx.promise("approval", type_hint=bool).resolve(yes)


app = restate.app([flow])
