"""`handrail flow publish`: the answer of a step that comes from outside, such as a webhook's."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from handrail.cli.arguments import CALLER, Parsers, add_request_id, add_settings
from handrail.cli.data import HELP, data_text
from handrail.cli.enum_words import kind, run_status
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.flow_names import add_flow, flow_id_of
from handrail.cli.parser import similar
from handrail.cli.session import Session, plain, session
from handrail.v1 import flow_service_pb2 as pb
from handrail.v1.failure_pb2 import StepCompleted, StepFailed

if TYPE_CHECKING:
    from google.protobuf.any_pb2 import Any

_ERROR_CLASS = "Outside"
"""The kind of a failure that was reported from outside, by which failures are grouped."""


def add(verbs: Parsers) -> None:
    """Adds the parser."""
    parser = verbs.add_parser(
        "publish",
        help="publish the answer of a step that comes from outside",
        description="Publish the answer of a step as its agent: the token has to speak for it. The same answer again "
        "is stored once; another answer is refused.",
    )
    add_flow(parser)
    parser.add_argument("step", metavar="STEP", help="the step that owes the answer")
    answer = parser.add_mutually_exclusive_group(required=True)
    answer.add_argument("--data", metavar="JSON", help=f"the answer {HELP}")
    answer.add_argument("--done", action="store_true", help="the step is done, and has nothing to say")
    answer.add_argument("--failed", metavar="TEXT", help="the step failed: what happened, for people")
    parser.add_argument("--type", default="", metavar="NAME", help="with --data: its type, if the step has several")
    parser.add_argument("--no-retry", action="store_true", help="with --failed: another attempt can't help")
    parser.add_argument("--outcome-unknown", action="store_true", help="with --failed: the effect may have happened")
    parser.add_argument("--root", default="", help="root of the step's run, if it has several")
    add_request_id(parser)
    add_settings(parser, CALLER)
    parser.set_defaults(run=_publish)


def _publish(arguments: argparse.Namespace) -> Exit:
    _require_meaning(arguments)
    with session(arguments) as asked:
        request = pb.GetFlowRequest(flow_id=flow_id_of(asked, arguments))
        flow = asked.client.call(asked.client.flows.GetFlow, request).flow
        run = _run(flow, arguments.step, arguments.root)
        data = _answer(asked, flow, arguments)
        published = asked.client.call(
            asked.client.flows.PublishEvent,
            pb.PublishEventRequest(
                flow_id=flow.flow_id,
                flow_type=flow.flow_type,
                step=run.step,
                root=run.root,
                run=run.run,
                attempt=run.attempt,
                output_total=1,
                data=data,
            ),
        )
        if asked.output.is_json:
            asked.output.document(plain(published))
            return Exit.OK
        stored = "was stored before" if published.already_stored else "is stored"
        name = data.type_url.rpartition("/")[2]
        asked.output.text(f"{name} {stored} as {kind(published.kind)}, at sequence {published.sequence}")
    return Exit.OK


def _require_meaning(arguments: argparse.Namespace) -> None:
    """Raises CommandError for flags that say nothing about this kind of answer."""
    if arguments.failed is None and (arguments.no_retry or arguments.outcome_unknown):
        raise CommandError("--no-retry and --outcome-unknown say more of a failure: they need --failed", Exit.USAGE)
    if arguments.data is None and arguments.type:
        raise CommandError("--type names the answer in --data: it needs --data", Exit.USAGE)


def _run(flow: pb.Flow, step: str, root: str) -> pb.StepRun:
    """Returns the only run of the step, or the one with the root, whether it owes an answer or has this one already.

    Of several it does not choose: the same answer, told again, would become that of another run.
    """
    of_step = [each for each in flow.step_runs if each.step == step]
    if not of_step:
        known = {each.step for each in flow.step_runs}
        raise CommandError(f'flow {flow.flow_id} waits for no step "{step}"{similar(step, known)}', Exit.NOT_FOUND)
    found = [each for each in of_step if each.root.startswith(root)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise CommandError(f"step {step} has no run with the root {root}:\n{_listed(of_step)}", Exit.NOT_FOUND)
    raise CommandError(f"step {step} has several runs: name one with --root\n{_listed(found)}", Exit.USAGE)


def _listed(runs: Sequence[pb.StepRun]) -> str:
    return "\n".join(f"  {each.root}  {run_status(each)}" for each in runs)


def _answer(asked: Session, flow: pb.Flow, arguments: argparse.Namespace) -> Any:
    from handrail.mesh.contracts import pack

    if arguments.data is not None:
        template = asked.template(flow.flow_type, flow.template_version).template
        emits = next((list(each.emits) for each in template.steps if each.name == arguments.step), [])
        contracts = asked.contracts(flow.flow_type, flow.template_version)
        return asked.payload(contracts, arguments.type, data_text(arguments.data), one_of=emits)
    if arguments.done:
        return pack(StepCompleted())
    return pack(
        StepFailed(
            error_class=_ERROR_CLASS,
            text=arguments.failed,
            retryable=not arguments.no_retry,
            outcome_unknown=arguments.outcome_unknown,
        )
    )
