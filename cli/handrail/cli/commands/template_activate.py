"""`handrail template activate|rollback|log`: which version new flows start with, and who decided so."""

from __future__ import annotations

import argparse

from handrail.cli.arguments import CALLER, Parsers, add_request_id, add_settings, positive
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output, time
from handrail.cli.pending import say_pending
from handrail.cli.session import Session, plain, session
from handrail.cli.versions import Version, add_version, version_of
from handrail.mesh.template.activations import version_before
from handrail.v1 import template_service_pb2 as pb

RELOAD = (
    "The broker's permissions have changed: generate them again and reload the servers "
    "(handrail nats-permissions --reload)."
)
_SHOWN = 50
_ALL = 100_000


def add(verbs: Parsers) -> None:
    """Adds the parsers."""
    _add_activate(verbs)
    _add_rollback(verbs)
    _add_log(verbs)


def _add_activate(verbs: Parsers) -> None:
    parser = verbs.add_parser("activate", help="start new flows with this version")
    add_version(parser)
    parser.add_argument("--reason", default="", help="the reason, for people; it is recorded")
    add_force(parser)
    add_request_id(parser)
    add_settings(parser, CALLER)
    parser.set_defaults(run=_activate)


def add_force(parser: argparse.ArgumentParser) -> None:
    """Adds `--force` to a command that activates a version."""
    parser.add_argument(
        "--force", action="store_true", help="activate even if no live worker of an agent fits the version"
    )


def _activate(arguments: argparse.Namespace) -> Exit:
    version = version_of(arguments)
    with session(arguments) as asked:
        activated = activation(asked, version, arguments.reason, force=arguments.force)
        if asked.output.is_json:
            asked.output.document(plain(activated))
        else:
            print_activation(asked.output, version.name, activated)
    return exit_of(activated)


def exit_of(activated: pb.ActivateTemplateResponse) -> Exit:
    """PENDING where another person has to confirm the activation, else OK."""
    return Exit.PENDING if activated.HasField("pending_act") else Exit.OK


def activation(asked: Session, version: Version, reason: str, *, force: bool) -> pb.ActivateTemplateResponse:
    """Activates a version; with `force` even if no live worker of an agent fits it."""
    request = pb.ActivateTemplateRequest(name=version.name, version=version.number, reason=reason, force=force)
    return asked.client.call(asked.client.templates.ActivateTemplate, request)


def print_activation(output: Output, name: str, activated: pb.ActivateTemplateResponse) -> None:
    """Prints an activation for people, or that it waits for another person."""
    if activated.HasField("pending_act"):
        say_pending(output, activated.pending_act)
        return
    output.text(f"{name} version {activated.activation.version} is active")
    print_warnings(output, activated)


def print_warnings(output: Output, activated: pb.ActivateTemplateResponse) -> None:
    """Prints what to do after an activation."""
    for each in activated.unfit_agents:
        output.text(
            f"No live worker of {each.agent} fits it ({each.problem}): its steps wait until a fitting one starts."
        )
    if activated.permissions_changed:
        output.text(RELOAD)


def _add_rollback(verbs: Parsers) -> None:
    text = "start new flows with the previously active version again"
    parser = verbs.add_parser(
        "rollback",
        help=text,
        description=f"{text.capitalize()}, or with an older one named by --to. Running flows keep their version.",
    )
    parser.add_argument("name", metavar="NAME", help="flow type")
    parser.add_argument("--reason", required=True, help="the reason, for people; it is recorded")
    add_force(parser)
    parser.add_argument("--to", type=positive, default=0, metavar="VERSION", help="this older version")
    add_request_id(parser)
    add_settings(parser, CALLER)
    parser.set_defaults(run=_rollback)


def _rollback(arguments: argparse.Namespace) -> Exit:
    name: str = arguments.name
    with session(arguments) as asked:
        log = _log_of(asked, name, _ALL)
        left = log[0].activation.version if log else 0
        target = arguments.to or version_before(each.activation.version for each in reversed(log))
        _require_older(name, target, left)
        activated = activation(asked, Version(name, target), arguments.reason, force=arguments.force)
        if asked.output.is_json:
            asked.output.document({"name": name, "rolledBackFrom": left, **plain(activated)})
            return exit_of(activated)
        if activated.HasField("pending_act"):
            return say_pending(asked.output, activated.pending_act)
        asked.output.text(f"{name} is rolled back from version {left} to {target}: new flows start with {target}")
        print_warnings(asked.output, activated)
        asked.output.text(_left_behind(asked, Version(name, left), target))
    return Exit.OK


def _usage(asked: Session, name: str) -> pb.GetTemplateUsageResponse:
    method = asked.client.templates.GetTemplateUsage
    try:
        return asked.client.call(method, pb.GetTemplateUsageRequest(name=name))
    except CommandError:
        return asked.client.call(method, pb.GetTemplateUsageRequest(name=name, scan=True))


def _left_behind(asked: Session, left: Version, target: int) -> str:
    """Reports the flows on the abandoned version; without an index only the newest are counted: all would take long."""
    try:
        usage = _usage(asked, left.name)
    except CommandError as error:
        # The rollback is done, even if this fails.
        return f"Flows on version {left.number} keep it; they could not be counted: {error.text}"
    running = sum(each.running_flows for each in usage.versions if each.version == left.number)
    if not running and not usage.next_page_token:
        return f"No flow runs on version {left.number}."
    seen = f" among the {usage.flows_examined} newest" if usage.next_page_token else ""
    flows = "1 flow runs" if running == 1 else f"{running} flows run"
    return (
        f"{flows} on version {left.number}{seen}and keep it. To see which can move: "
        f"handrail template migrate {left.name} --from {left.number} --to {target} --plan"
    )


def _require_older(name: str, target: int, active: int) -> None:
    if not active:
        raise CommandError(f"no version of {name} is active: there is nothing to roll back from")
    if not target:
        raise CommandError(f"no version older than {name}@{active} was active; name a stored one with --to VERSION")
    if target >= active:
        raise CommandError(
            f"{name}@{target} is not older than the active {active}; for a newer one: handrail template activate "
            f"{name}@{target}",
            Exit.USAGE,
        )


def _add_log(verbs: Parsers) -> None:
    text = "show which version was activated when, by whom and why"
    parser = verbs.add_parser("log", help=text, description=f"{text.capitalize()}, newest first.")
    parser.add_argument("name", metavar="NAME", help="flow type")
    parser.add_argument(
        "--limit", type=positive, default=_SHOWN, metavar="N", help=f"maximum number of entries [default {_SHOWN}]"
    )
    add_settings(parser, CALLER)
    parser.set_defaults(run=_log)


def _log(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        log = _log_of(asked, arguments.name, arguments.limit)
        if asked.output.is_json:
            asked.output.document({"activations": [plain(each) for each in log]})
        else:
            asked.output.table(
                ("N", "TIME", "VERSION", "WHAT", "BY", "REASON"),
                map(_row, log),
                empty=f"No version of {arguments.name} has been activated yet.",
            )
    return Exit.OK


def _row(entry: pb.LoggedActivation) -> tuple[object, ...]:
    recorded, before = entry.activation, entry.previous_version
    what = f"rolled back from {before}" if entry.rollback else f"activated after {before}" if before else "activated"
    return entry.number, time(recorded.time), recorded.version, what, recorded.by, recorded.reason


def _log_of(asked: Session, name: str, limit: int) -> list[pb.LoggedActivation]:
    """Returns the newest entries of the log, newest first."""
    request = pb.ListActivationsRequest(name=name)
    method = asked.client.templates.ListActivations
    return list(asked.client.listed(method, request, items=lambda page: page.activations, limit=limit))
