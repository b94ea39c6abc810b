"""`handrail template diff`: what changes for flows between two versions, in sentences."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from handrail.analysis.diff.template_diff import Change, diff
from handrail.cli.arguments import CALLER, Parsers, add_settings
from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output
from handrail.cli.session import session
from handrail.cli.template_sources import add_sources, templates_of
from handrail.mesh.template import Template


def add(verbs: Parsers) -> None:
    """Adds the parser."""
    text = "show what changes for flows between two versions"
    parser = verbs.add_parser("diff", help=text, description=f"{text.capitalize()}.")
    add_sources(parser, "old", "new")
    parser.add_argument("--exit-code", action="store_true", help="exit with 1 if anything changes")
    add_settings(parser, CALLER)
    parser.set_defaults(run=_diff)


def _diff(arguments: argparse.Namespace) -> Exit:
    with session(arguments) as asked:
        old, new = templates_of(asked, [arguments.old, arguments.new], arguments.contracts)
        changes = diff(old, new)
        _print(asked.output, old, new, changes)
    return Exit.FAILED if changes and arguments.exit_code else Exit.OK


def _print(output: Output, old: Template, new: Template, changes: list[Change]) -> None:
    if output.is_json:
        versions = {key: {"name": t.name, "version": t.version} for key, t in (("old", old), ("new", new))}
        output.document({**versions, "changes": [asdict(change) for change in changes]})
        return
    output.text(f"{old.name}@{old.version} -> {new.name}@{new.version}")
    for change in changes:
        output.text(f"- {change.text}")
    if not changes:
        output.text("Nothing changes for flows.")
