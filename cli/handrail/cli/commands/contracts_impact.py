"""`handrail contracts impact`: what changed in the contracts, whom it hits, and until when flows depend on it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from handrail.analysis.compat.change import Change, Level
from handrail.analysis.compat.contract_set import ContractSet
from handrail.analysis.compat.diff import diff
from handrail.analysis.compat.impact import Impact, Known, impacts
from handrail.cli.arguments import Parsers, add_form, add_settings, form_of, positive, settings_of
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
from handrail.cli.output import Output
from handrail.cli.session import Session, session
from handrail.cli.templates import read_template
from handrail.cli.usage import Usage, read_usage
from handrail.mesh import settings as table
from handrail.v1.template_pb2 import StoredTemplate

LIVE = "LIVE"
_MAX_FLOWS = 20_000
_FAIL_ON = {"tightened": Level.TIGHTENED, "breaking": Level.BREAKING_SOURCE, "never": None}
_Found = tuple[Sequence[Impact], list[Known], list[str]]
"""The changes with whom they hit, the templates that were looked at, and notes on what was not."""

_COORDINATOR = (table.ADDRESS, table.TOKEN, table.TOKEN_FILE, table.TIMEOUT)


def fill(verbs: Parsers) -> None:
    """Add the verb."""
    impact = verbs.add_parser(
        "impact", help="whom a change of the contracts hits, and until when flows depend on it", allow_abbrev=False
    )
    impact.add_argument(
        "--against",
        required=True,
        metavar="REF|IMAGE|LIVE",
        help="compare with a git ref, an image, or with what the coordinator has stored (LIVE)",
    )
    impact.add_argument(
        "--contracts", metavar="IMAGE", help="the contracts now: an image, or a Python module with MESSAGES "
        "[default: buf builds those of this folder]",
    )  # fmt: skip
    impact.add_argument(
        "--template", action="append", default=[], type=Path, metavar="FILE",
        help="a template to look at, may be repeated [default: those in this folder and below]",
    )  # fmt: skip
    impact.add_argument(
        "--fail-on", choices=tuple(_FAIL_ON), default="breaking",
        help="exit with 1 from this kind of change on [default breaking]",
    )  # fmt: skip
    impact.add_argument(
        "--max-flows", type=positive, default=_MAX_FLOWS, metavar="NUMBER",
        help=f"look at so many flows at most, newest first [default {_MAX_FLOWS}]",
    )  # fmt: skip
    add_form(impact, "markdown")
    add_settings(impact, _COORDINATOR)
    impact.set_defaults(run=_impact)


def _impact(arguments: argparse.Namespace) -> Exit:
    form = form_of(arguments)
    with ExitStack() as stack:
        asked = stack.enter_context(session(_without_form(arguments))) if _asks(arguments) else None
        report = _report(arguments, asked)
    if form == "json":
        Output(form).document(as_json(report))
    else:
        for line in as_markdown(report) if form == "markdown" else as_text(report):
            Output(form).text(line)
    fail_on = _FAIL_ON[arguments.fail_on]
    return Exit.FAILED if fail_on is not None and report.worst >= fail_on else Exit.OK


def _report(arguments: argparse.Namespace, asked: Session | None) -> Report:
    now = read_image(arguments.contracts) if arguments.contracts else build_project()
    stored = [asked.template(each.name, each.version) for each in listed(asked)] if asked is not None else []
    if asked is not None and arguments.against == LIVE:
        found, known, notes = _against_live(arguments, asked, stored, now)
    else:
        found, known, notes = _against_baseline(arguments, now, stored)
    usage = read_usage(asked, max_flows=arguments.max_flows) if asked is not None else None
    return Report(arguments.against, found, known, usage, [*notes, *_limits(usage, known)])


def _against_baseline(arguments: argparse.Namespace, now: ContractSet, stored: Iterable[StoredTemplate]) -> _Found:
    """The changes since a ref or an image, and whom they hit of the templates that are stored, here, or at the ref."""
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
        notes += [f"package {package}: {against} does not hold it, so nothing of it can break" for package in missing]
    return impacts(diff(before, now), before, now, known, read_consumers()), known, notes


def _against_live(
    arguments: argparse.Namespace, asked: Session, stored: Iterable[StoredTemplate], now: ContractSet
) -> _Found:
    """The changes since each version was stored that have to do with it, for its files hold neighbours, too; and those
    of the API that the coordinator serves, where it is this project's."""
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
            notes.append(f"{each.template.name}@{each.template.version}: none of its contracts are of this project")
            continue
        known.append(Known(each.template, "stored"))
        compared.append(before)
        _collect(by_change, impacts(diff(before, now), before, now, known[-1:], consumers))
    served = served_contracts(asked.client)
    if served is None:
        notes.append("the coordinator's own API: it serves no reflection")
    else:
        # A module's messages are not the whole project; else a file that is gone has gone from its package.
        is_module = arguments.contracts and not Path(arguments.contracts).exists()
        before = served.only(now.files if is_module else served.files_of(packages))
        compared.append(before)
        _collect(by_change, impacts(diff(before, now), before, now, (), consumers))
    notes += _unseen(now, compared)
    return sorted(by_change.values(), key=lambda impact: (-impact.change.level, impact.change)), known, notes


def _collect(by_change: dict[Change, Impact], found: Iterable[Impact]) -> None:
    """Add those that hit somebody to what other versions said of the same change. What a version was not stored with is
    new to it, and hits nobody."""
    for impact in found:
        if impact.hits_anybody and (impact.hits or impact.change.level):
            earlier = by_change.get(impact.change)
            by_change[impact.change] = impact if earlier is None else earlier.plus(impact)


def _unseen(now: ContractSet, compared: Iterable[ContractSet]) -> list[str]:
    """Services whose clients a comparison with what is live can't know of."""
    seen = {name for before in compared for name in before.services}
    mine = {name for name, each in now.services.items() if each.file.name in now.files}
    return [
        f"service {name}: the coordinator neither serves nor has stored it; an image knows its RPCs"
        for name in sorted(mine - seen)
    ]


def _from_files(files: Sequence[Path]) -> tuple[list[Known], list[str]]:
    if not files:
        return find_templates(Path.cwd())
    try:
        return [Known(read_template(path), str(path)) for path in files], []
    except CommandError as error:
        raise CommandError(error.text, Exit.USAGE) from None  # 1 says that contracts break


def _limits(usage: Usage | None, known: Sequence[Known]) -> list[str]:
    """What the report can't say."""
    notes = []
    if not known:
        notes.append("no template was found: name some with --template, or a coordinator with --address")
    if usage is None:
        notes.append("running flows and live agents: no coordinator was asked; name one with --address")
    elif usage.stopped_early:
        notes.append(f"flows older than the newest {usage.examined:,}: --max-flows allows for more")
    return notes


def _asks(arguments: argparse.Namespace) -> bool:
    """Whether a coordinator is to be asked: for LIVE, or where somebody named one."""
    settings = settings_of(arguments)
    named = settings.flags.get(table.ADDRESS.key) or settings.environment.get(table.ADDRESS.env)
    return arguments.against == LIVE or bool(named)


def _without_form(arguments: argparse.Namespace) -> argparse.Namespace:
    """The arguments with no form of output: a session knows fewer."""
    return argparse.Namespace(**{**vars(arguments), "output": None})
