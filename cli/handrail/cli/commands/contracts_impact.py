"""`handrail contracts impact`: what changed in the contracts, whom it affects, and until when flows depend on it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from handrail.analysis.compat.change import Change, Level
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.analysis.compat.impact import Impact, Known, impacts
from handrail.cli.arguments import TRANSPORT, Parsers, add_form, add_settings, form_of, positive, settings_of
from handrail.cli.baseline import (
    Baseline,
    at_ref,
    build_project,
    distinct,
    find_templates,
    read_image,
    served_contracts,
    stored_contracts,
)
from handrail.cli.commands.template import listed
from handrail.cli.consumers import read_consumers
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.impact_json import as_json
from handrail.cli.impact_report import Report, as_markdown, as_text
from handrail.cli.listing import add_scan
from handrail.cli.output import Output
from handrail.cli.released import RELEASED
from handrail.cli.session import Session, session
from handrail.cli.templates import read_template
from handrail.cli.usage import Usage, read_usage
from handrail.mesh import settings as table
from handrail.v1.template_pb2 import StoredTemplate

LIVE = "LIVE"
_MAX_FLOWS = 20_000
_NOTHING_RELEASED = f"nothing is released yet ({RELEASED} does not exist): name a git ref or an image with --against"
_FAIL_ON = {"tightened": Level.TIGHTENED, "breaking": Level.BREAKING_SOURCE, "never": None}
_Found = tuple[Sequence[Impact], list[Known], list[str]]
"""The changes and whom they affect, the templates that were examined, and notes on what was not."""

_COORDINATOR = (*TRANSPORT, table.TOKEN, table.TOKEN_FILE, table.TIMEOUT)


def fill(verbs: Parsers) -> None:
    """Adds the verb."""
    impact = verbs.add_parser(
        "impact",
        help="show whom a change to the contracts affects, and until when flows depend on it",
    )
    impact.add_argument(
        "--against",
        metavar="REF|IMAGE|LIVE",
        help="compare with a git ref, an image, or the coordinator's stored contracts (LIVE) "
        f"[default: the released ones, {RELEASED}]",
    )
    impact.add_argument(
        "--contracts", metavar="IMAGE", help="the current contracts: an image, or a Python module with MESSAGES "
        "[default: buf builds those of this folder]",
    )  # fmt: skip
    impact.add_argument(
        "--template", action="append", default=[], type=Path, metavar="FILE",
        help="a template to examine, may be repeated [default: those in this folder and below]",
    )  # fmt: skip
    impact.add_argument(
        "--fail-on", choices=tuple(_FAIL_ON), default="breaking",
        help="exit with 1 for changes of this kind or worse [default breaking]",
    )  # fmt: skip
    impact.add_argument(
        "--max-flows", type=positive, default=_MAX_FLOWS, metavar="NUMBER",
        help=f"maximum number of flows to examine in a scan, newest first [default {_MAX_FLOWS}]",
    )  # fmt: skip
    add_scan(impact)
    add_form(impact, "markdown")
    add_settings(impact, _COORDINATOR)
    impact.set_defaults(run=_impact)


def _impact(arguments: argparse.Namespace) -> Exit:
    form = form_of(arguments)
    if arguments.against is None:
        arguments.against = str(RELEASED)
        if not RELEASED.is_file():
            _print(Report(arguments.against, [], [], None, [_NOTHING_RELEASED]), form)
            return Exit.OK
    with ExitStack() as stack:
        asked = stack.enter_context(session(_without_form(arguments))) if _asks(arguments) else None
        report = _report(arguments, asked)
    _print(report, form)
    fail_on = _FAIL_ON[arguments.fail_on]
    return Exit.FAILED if fail_on is not None and report.worst >= fail_on else Exit.OK


def _print(report: Report, form: str) -> None:
    if form == "json":
        Output(form).document(as_json(report))
    else:
        for line in as_markdown(report) if form == "markdown" else as_text(report):
            Output(form).text(line)


def _report(arguments: argparse.Namespace, asked: Session | None) -> Report:
    now = read_image(arguments.contracts) if arguments.contracts else build_project()
    stored = [asked.template(each.name, each.version) for each in listed(asked)] if asked is not None else []
    if asked is not None and arguments.against == LIVE:
        found, known, notes = _against_live(arguments, asked, stored, now)
    else:
        found, known, notes = _against_baseline(arguments, now, stored)
    usage = read_usage(asked, max_flows=arguments.max_flows, scan=arguments.scan) if asked is not None else None
    return Report(arguments.against, found, known, usage, [*notes, *_limits(usage, known)])


def _against_baseline(arguments: argparse.Namespace, now: ContractSet, stored: Iterable[StoredTemplate]) -> _Found:
    """Finds the changes since a ref or an image, and whom they affect in stored, local and ref templates."""
    against: str = arguments.against
    templates, notes = _from_files(arguments.template)
    baseline = Baseline(read_image(against)) if Path(against).is_file() else at_ref(against)
    if not arguments.template:
        templates += baseline.templates
        notes += baseline.notes
    known = distinct([*(Known(each.template, "stored") for each in stored), *templates])
    before = baseline.contracts
    if arguments.contracts and not Path(arguments.contracts).exists():
        before = before.only(now.files)  # a module's messages are not the whole project
    if Path(against).is_file() and not arguments.contracts:
        missing = sorted(now.packages - before.packages)
        notes += [f"package {package}: {against} does not contain it, so it can't break" for package in missing]
    return impacts(diff(before, now), before, now, known, read_consumers()), known, notes


def _against_live(
    arguments: argparse.Namespace, asked: Session, stored: Iterable[StoredTemplate], now: ContractSet
) -> _Found:
    """Finds the changes since each version was stored that concern it, because its files may have neighbours, and those
    in the coordinator's API, if the API belongs to this project."""
    consumers = read_consumers()
    names = {known.proto.name for known in _from_files(arguments.template)[0]}
    packages = now.packages
    by_change: dict[Change, Impact] = {}
    known: list[Known] = []
    notes: list[str] = []
    compared: list[ContractSet] = []
    for each in stored:
        before = stored_contracts(each, now)
        ours = each.template.name in names or packages & before.packages
        if not ours:
            notes.append(f"{each.template.name}@{each.template.version}: none of its contracts belong to this project")
            continue
        known.append(Known(each.template, "stored"))
        compared.append(before)
        _collect(by_change, impacts(diff(before, now), before, now, known[-1:], consumers))
    served = served_contracts(asked.client)
    if served is None:
        notes.append("the coordinator's own API: reflection is off")
    else:
        # A module's messages are not the whole project; otherwise a missing file was removed from its package.
        is_module = arguments.contracts and not Path(arguments.contracts).exists()
        before = served.only(now.files if is_module else served.files_of(packages))
        compared.append(before)
        _collect(by_change, impacts(diff(before, now), before, now, (), consumers))
    notes += _unseen(now, compared)
    return sorted(by_change.values(), key=lambda impact: (-impact.change.level, impact.change)), known, notes


def _collect(by_change: dict[Change, Impact], found: Iterable[Impact]) -> None:
    """Merges impacts on somebody with those of other versions for the same change. A contract that a version was not
    stored with is new to it, and affects nobody."""
    for impact in found:
        if impact.hits_anybody and (impact.hits or impact.change.level):
            earlier = by_change.get(impact.change)
            by_change[impact.change] = impact if earlier is None else earlier.plus(impact)


def _unseen(now: ContractSet, compared: Iterable[ContractSet]) -> list[str]:
    """Lists services that a comparison with LIVE can't see clients of."""
    seen = {name for before in compared for name in before.services}
    mine = {name for name, each in now.services.items() if each.file.name in now.files}
    return [
        f"service {name}: the coordinator neither serves nor stores it; compare with an image that contains its RPCs"
        for name in sorted(mine - seen)
    ]


def _from_files(files: Sequence[Path]) -> tuple[list[Known], list[str]]:
    if not files:
        return find_templates(Path.cwd())
    try:
        return [Known(read_template(path), str(path)) for path in files], []
    except CommandError as error:
        raise CommandError(error.text, Exit.USAGE) from None  # 1 means that contracts break


def _limits(usage: Usage | None, known: Sequence[Known]) -> list[str]:
    """Lists what the report can't say."""
    notes = []
    if not known:
        notes.append("no template was found; name templates with --template, or a coordinator with --address")
    if usage is None:
        notes.append("running flows and live agents: no coordinator was asked; name one with --address")
    elif usage.stopped_early:
        notes.append(f"flows older than the newest {usage.examined:,}; raise --max-flows to include them")
    return notes


def _asks(arguments: argparse.Namespace) -> bool:
    """Tells whether to ask a coordinator: for LIVE, or if one was named."""
    settings = settings_of(arguments)
    named = settings.flags.get(table.ADDRESS.key) or settings.environment.get(table.ADDRESS.env)
    return arguments.against == LIVE or bool(named)


def _without_form(arguments: argparse.Namespace) -> argparse.Namespace:
    """Returns the arguments without an output form: a session knows fewer."""
    return argparse.Namespace(**{**vars(arguments), "output": None})
