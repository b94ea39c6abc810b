"""`handrail flow plan|compensate|cancel|retry|resolve`: a person's interventions in a flow."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, Parsers, add_request_id, add_settings
from handrail.cli.enum_words import choice_of, choices, effect_status, spelled, status_of
from handrail.cli.exit_codes import Exit
from handrail.cli.flow_names import add_flow, flow_id_of
from handrail.cli.pending import say_pending
from handrail.cli.session import Session, plain, session
from handrail.v1 import flow_service_pb2 as pb


def add(verbs: Parsers) -> None:
    """Adds the parsers."""
    _add_plan(verbs)
    _add_compensate(verbs)
    _add_cancel(verbs)
    _add_retry(verbs)
    _add_resolve(verbs)


def _add_plan(verbs: Parsers) -> None:
    parser = _add_verb(verbs, "plan", "show what a compensation would undo, without doing it")
    parser.add_argument(
        "--to-step", default="", metavar="STEP", help="compensate back to this step [default: everything]"
    )
    parser.set_defaults(run=_plan)


def _plan(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.PlanCompensationRequest(flow_id=flow_id_of(asked, arguments), to_step=arguments.to_step)
        plan = asked.client.call(asked.client.flows.PlanCompensation, request)
        if asked.output.is_json:
            asked.output.document(plain(plan))
            return Exit.OK
        rows = [
            (
                f"{number}." if what == "undo" and not plan.parallel else "",
                what,
                e.step,
                e.agent,
                e.type,
                effect_status(e),
            )
            for what, effects in (("undo", plan.undos), ("stays", plan.irreversible), ("undone", plan.undone))
            for number, e in enumerate(effects, 1)
        ]
        rows += [("", "run again", e.step, e.agent, e.type, effect_status(e)) for e in plan.run_again]
        rows += [("", "awaited", run.step, run.agent, "outcome unknown", "") for run in plan.unknown]
        asked.output.table(
            ("", "WHAT", "STEP", "AGENT", "EFFECT", "STATUS"), rows, empty="There are no effects to undo."
        )
    return Exit.OK


def _add_compensate(verbs: Parsers) -> None:
    parser = _add_verb(verbs, "compensate", "halt a flow and undo its effects", decides=True)
    parser.add_argument(
        "--to-step", default="", metavar="STEP", help="compensate back to this step [default: everything]"
    )
    _add_run_again(parser)
    parser.set_defaults(run=_compensate)


def _compensate(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.CompensateFlowRequest(
            flow_id=flow_id_of(asked, arguments),
            reason=arguments.reason,
            to_step=arguments.to_step,
            run_again=arguments.run_again,
            etag=arguments.etag,
        )
        return _decided(asked, asked.client.call(asked.client.flows.CompensateFlow, request))


def _add_cancel(verbs: Parsers) -> None:
    parser = _add_verb(verbs, "cancel", "halt a flow, undo its effects, and cancel it", decides=True)
    parser.add_argument("--keep-effects", action="store_true", help="do not undo the effects")
    parser.set_defaults(run=_cancel)


def _cancel(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.CancelFlowRequest(
            flow_id=flow_id_of(asked, arguments),
            reason=arguments.reason,
            keep_effects=arguments.keep_effects,
            etag=arguments.etag,
        )
        return _decided(asked, asked.client.call(asked.client.flows.CancelFlow, request))


def _add_retry(verbs: Parsers) -> None:
    parser = _add_verb(verbs, "retry", "run a failed, finished or undone step again", decides=True)
    parser.add_argument("step", metavar="STEP", help="the step")
    parser.add_argument("--root", default="", help="root of its run, if the step has several")
    _add_run_again(parser)
    parser.set_defaults(run=_retry)


def _retry(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.RetryStepRequest(
            flow_id=flow_id_of(asked, arguments),
            step=arguments.step,
            root=arguments.root,
            reason=arguments.reason,
            run_again=arguments.run_again,
            etag=arguments.etag,
        )
        return _decided(asked, asked.client.call(asked.client.flows.RetryStep, request))


def _add_resolve(verbs: Parsers) -> None:
    parser = _add_verb(verbs, "resolve", "answer an escalation", decides=True)
    parser.add_argument(
        "choice", metavar="CHOICE", type=spelled, choices=choices(), help=f"one of {', '.join(choices())}"
    )
    parser.add_argument("--escalation", default="", metavar="ID", help="which escalation, if several are open")
    _add_run_again(parser)
    parser.set_defaults(run=_resolve)


def _resolve(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        request = pb.ResolveEscalationRequest(
            flow_id=flow_id_of(asked, arguments),
            escalation_id=arguments.escalation,
            choice=choice_of(arguments.choice),
            reason=arguments.reason,
            run_again=arguments.run_again,
            etag=arguments.etag,
        )
        return _decided(asked, asked.client.call(asked.client.flows.ResolveEscalation, request))


def _add_run_again(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--run-again",
        action="append",
        default=[],
        metavar="STEP",
        help="consent that this step runs again although its effects stand; repeat for each such step",
    )


def _add_verb(verbs: Parsers, name: str, text: str, *, decides: bool = False) -> argparse.ArgumentParser:
    parser = verbs.add_parser(name, help=text, description=text.capitalize() + ".")
    add_flow(parser)
    if decides:
        parser.add_argument("--reason", required=True, help="the reason, for people; it is recorded")
        parser.add_argument("--etag", default="", help="act only if the flow has not changed since this etag was read")
        add_request_id(parser)
    add_settings(parser, CALLER)
    return parser


_Decided = pb.CompensateFlowResponse | pb.CancelFlowResponse | pb.RetryStepResponse | pb.ResolveEscalationResponse


def _decided(asked: Session, response: _Decided) -> Exit:
    flow = response.flow
    if response.HasField("pending_act") and not asked.output.is_json:
        return say_pending(asked.output, response.pending_act)
    if asked.output.is_json:
        asked.output.document(asked.to_json(flow, flow.flow_type, flow.template_version))
    else:
        asked.output.text(
            f"{flow.flow_id} is {status_of(flow)}{f': {flow.status_reason}' if flow.status_reason else ''}"
        )
    return Exit.PENDING if response.HasField("pending_act") else Exit.OK
