"""`handrail archive export`: an archive as Parquet files."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from handrail.cli.arguments import CALLER, Parsers, add_settings, form_of, since
from handrail.cli.commands.archive_folder import existing, finding_json
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.session import Session, session
from handrail.cli.templates import read_contracts
from handrail.mesh.contracts import Contracts
from handrail.mesh.printable import clean, json_text

if TYPE_CHECKING:
    from handrail.visibility.archive.errors import Finding
    from handrail.visibility.archive.folder import Folder
    from handrail.visibility.export.parquet import Export, Exported

_KNOWN = 256
"""How many versions of contracts are kept: an agent may write any number into its messages."""


class _Source(NamedTuple):
    """Where contracts come from: its name, which is another one for other contracts, and how to get them."""

    name: str
    contracts_of: Callable[[str, int], Contracts]


def add_export(commands: Parsers) -> None:
    """Adds the subcommand."""
    parser = commands.add_parser("export", help="write the messages as Parquet files")
    parser.description = (
        "Write the messages of an archive as Parquet, one file for each segment. Run it again for the segments that "
        "came since: files that are there stay. A damaged segment is named, and not exported."
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the archive's folder")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder for the files")
    parser.add_argument(
        "--since", type=since, metavar="TIME", help="only messages stored from a time on, or for so long: 30m, 24h, 7d"
    )
    parser.add_argument("--until", type=since, metavar="TIME", help="only messages stored before a time")
    parser.add_argument(
        "--flow-type", action="append", default=[], metavar="TYPE", help="only messages of a flow type; repeatable"
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--contracts",
        default="",
        metavar="IMAGE",
        help="descriptors of the messages: an image from `buf build -o IMAGE.binpb`, or a Python module with MESSAGES "
        "[default: those stored with the templates; the coordinator is asked for them]",
    )
    source.add_argument("--raw", action="store_true", help="leave the agents' messages as bytes; ask no coordinator")
    add_settings(parser, CALLER)
    parser.set_defaults(run=_export)


def _export(arguments: argparse.Namespace) -> Exit:
    from handrail.visibility.archive.folder import Folder
    from handrail.visibility.export.parquet import Export
    from handrail.visibility.export.rows import Wanted

    folder = Folder(existing(arguments.folder))
    wanted = Wanted(since=arguments.since, until=arguments.until, flow_types=frozenset(arguments.flow_type))
    with _source(arguments) as source:
        try:
            with Export(
                arguments.out, wanted=wanted, contracts=source.name, contracts_of=source.contracts_of
            ) as export:
                exported, damaged = _add_all(export, folder, shows=form_of(arguments) != "json")
        except OSError as error:
            raise CommandError(f"{arguments.out} can't be written: {error.strerror or error}") from error
    if form_of(arguments) == "json":
        files = [{"file": str(each.path), "rows": each.rows, "new": each.is_new} for each in exported]
        print(json_text({"files": files, "findings": [finding_json(each) for each in damaged]}))
    return Exit.FAILED if damaged else Exit.OK


def _add_all(export: Export, folder: Folder, *, shows: bool) -> tuple[list[Exported], list[Finding]]:
    """Exports every segment that is whole, and where it should be; tells of each as soon as it is done."""
    from handrail.visibility.archive.errors import Damaged, Kind
    from handrail.visibility.archive.verify import verify

    exported: list[Exported] = []
    damaged = list(verify(folder, full=False))
    misplaced = {each.file for each in damaged if each.kind is not Kind.MISSING_SEGMENT}
    for finding in damaged if shows else ():
        print(clean(str(finding)))
    for first in folder.firsts():
        if folder.file(first).name in misplaced:
            continue
        try:
            exported.append(export.add(folder, first))
            if shows:
                done = exported[-1]
                print(clean(f"{done.path}: {done.rows} rows{'' if done.is_new else ', as before'}"), flush=True)
        except Damaged as error:
            damaged.append(error.finding)
            if shows:
                print(clean(str(error.finding)))
    return exported, damaged


@contextmanager
def _source(arguments: argparse.Namespace) -> Iterator[_Source]:
    own = Contracts.from_descriptor_set(b"")
    if arguments.raw:
        yield _Source("", lambda flow_type, version: own)
    elif arguments.contracts:
        given = read_contracts(arguments.contracts)
        yield _Source(sha256(given.descriptor_set).hexdigest(), lambda flow_type, version: given)
    else:
        with session(arguments) as asked:
            yield _Source(
                "stored", lru_cache(_KNOWN)(lambda flow_type, version: _stored(asked, flow_type, version) or own)
            )


def _stored(asked: Session, flow_type: str, version: int) -> Contracts | None:
    """The contracts that are stored with a version; None if there is none. Raises CommandError."""
    try:
        return asked.contracts(flow_type, version) if version else None
    except CommandError as error:
        if error.code is Exit.NOT_FOUND:
            return None
        raise CommandError(f"{error.text}; --contracts IMAGE and --raw need no coordinator", error.code) from None
