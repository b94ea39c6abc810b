"""`handrail template check`: the flow type-check over files, without a server."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from handrail.cli.arguments import Parsers, settings_of
from handrail.cli.exit_codes import Exit
from handrail.cli.output import Output
from handrail.cli.sarif import sarif
from handrail.cli.session import plain
from handrail.cli.templates import add_contracts, contracts_of, distinct, findings_of, is_error, print_findings
from handrail.mesh import settings as table
from handrail.mesh.contracts import Contracts
from handrail.v1.template_pb2 import Finding

_FORMS = ("text", "json", "sarif")
_Found = list[tuple[Path, Finding]]


def fill_check(verbs: Parsers) -> None:
    """Adds the verb."""
    check = verbs.add_parser("check", help="check templates without a server")
    check.add_argument("files", nargs="+", type=Path, metavar="FILE", help="template in YAML")
    add_contracts(check)
    check.add_argument("--strict", action="store_true", help="fail on warnings too")
    check.add_argument("--output", choices=_FORMS, help="form of the findings [HANDRAIL_OUTPUT, default text]")
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> Exit:
    form = arguments.output or settings_of(argparse.Namespace()).value(table.OUTPUT)
    contracts = contracts_of(arguments, arguments.files[0])
    findings = list(_findings(arguments.files, contracts))
    errors = [each for each in findings if is_error(each[1])]
    _print(form, arguments.files, findings, len(distinct(errors)))
    return Exit.FAILED if errors or (arguments.strict and findings) else Exit.OK


def _findings(files: list[Path], contracts: Contracts) -> Iterator[tuple[Path, Finding]]:
    for path in files:
        for found in findings_of(path, contracts):
            yield path, found


def _print(form: str, files: list[Path], findings: _Found, errors: int) -> None:
    output = Output(form)
    if form == "sarif":
        output.document(sarif(findings))
    elif form == "json":
        output.document({"findings": [{"file": str(path), **plain(found)} for path, found in findings]})
    else:
        print_findings(output, findings)
        output.text(f"{len(files)} checked: {errors} errors, {len(distinct(findings)) - errors} warnings")
