"""`handrail template graph`: draws a template."""

from __future__ import annotations

import argparse
from pathlib import Path

from handrail.analysis.chart.mermaid import mermaid
from handrail.analysis.chart.model import chart_of
from handrail.analysis.chart.svg import svg
from handrail.cli.arguments import CALLER, Parsers, add_settings
from handrail.cli.exit_codes import Exit
from handrail.cli.session import session
from handrail.cli.template_sources import METAVAR, source
from handrail.cli.templates import read_template
from handrail.mesh import settings as table
from handrail.v1.template_pb2 import FlowTemplate

_FORMATS = {"mermaid": mermaid, "svg": svg}


def add(verbs: Parsers) -> None:
    """Adds the parser."""
    text = "draw a template, as a Mermaid flowchart or as SVG"
    parser = verbs.add_parser("graph", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("source", type=source, metavar=METAVAR, help="a stored version, or a template in YAML")
    parser.add_argument("--format", choices=_FORMATS, default="mermaid", help="output format [default mermaid]")
    add_settings(parser, [each for each in CALLER if each is not table.OUTPUT])
    parser.set_defaults(run=_graph)


def _graph(arguments: argparse.Namespace) -> Exit:
    print(_FORMATS[arguments.format](chart_of(_read(arguments))), end="")
    return Exit.OK


def _read(arguments: argparse.Namespace) -> FlowTemplate:
    if isinstance(arguments.source, Path):
        return read_template(arguments.source)
    with session(arguments) as asked:
        return asked.template(*arguments.source).template
