"""Templates from the coordinator (NAME@VERSION) or from files (paths), compiled."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.session import Session
from handrail.cli.templates import read_contracts, read_template
from handrail.cli.versions import Version, version
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template import Template

Source: TypeAlias = Version | Path

METAVAR = "NAME[@VERSION]|FILE"


def add_sources(parser: argparse.ArgumentParser, *names: str) -> None:
    """Adds an argument for each of the templates, and --contracts for those in files."""
    for name in names:
        parser.add_argument(name, type=source, metavar=METAVAR, help="a stored version, or a template in YAML")
    parser.add_argument(
        "--contracts",
        default="",
        metavar="IMAGE",
        help="descriptors of the messages of a file: an image from `buf build -o IMAGE.binpb`, or a Python module with "
        "MESSAGES [default: those stored with the other version]",
    )


def source(text: str) -> Source:
    """Returns a path if the file exists or the text looks like one; otherwise a stored version."""
    path = Path(text)
    if path.exists() or path.suffix in (".yaml", ".yml", ".json") or len(path.parts) > 1:
        return path
    return version(text)


def templates_of(asked: Session, sources: Sequence[Source], contracts: str) -> list[Template]:
    """Returns the compiled templates; raises CommandError if one can't be read, or its messages are unknown."""
    stored = {each: asked.template(*each) for each in sources if isinstance(each, Version)}
    known: Contracts | None = read_contracts(contracts) if contracts else None
    if known is None and stored:
        known = Contracts.from_descriptor_set(next(iter(stored.values())).descriptors)
    found = []
    for source in sources:
        if isinstance(source, Version):
            own = stored[source]
            found.append(Template.compile(own.template, Contracts.from_descriptor_set(own.descriptors)))
        else:
            found.append(_from_file(source, known))
    return found


def _from_file(path: Path, contracts: Contracts | None) -> Template:
    if contracts is None:
        raise CommandError(
            f"the messages of {path} are unknown: name their descriptors with --contracts IMAGE", Exit.USAGE
        )
    template = read_template(path)
    try:
        return Template.compile(template, contracts)
    except HandrailError as error:
        raise CommandError(
            f"{path}: {error.text} ({error.reason_name}); handrail template check shows more, --contracts IMAGE names "
            "other contracts"
        ) from None
