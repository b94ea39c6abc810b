"""`handrail archive`: verifies an archive, shows what it holds, and exports it."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from handrail.cli.arguments import add_form, form_of
from handrail.cli.commands import archive_erase
from handrail.cli.commands.archive_export import add_export
from handrail.cli.commands.archive_folder import existing, finding_json
from handrail.cli.exit_codes import Exit
from handrail.mesh.printable import clean, json_text

if TYPE_CHECKING:
    from handrail.visibility.archive.errors import Finding
    from handrail.visibility.archive.segment import Segment


def fill(parser: argparse.ArgumentParser) -> None:
    """Adds the subcommands to the command's parser."""
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    verify = commands.add_parser("verify", help="read everything, and tell what is damaged or missing")
    verify.description = (
        "Read an archive and compare everything with its digests. Writes nothing; ends with 1 if something is wrong."
    )
    verify.add_argument("folder", type=Path, metavar="FOLDER", help="the archive's folder")
    verify.add_argument(
        "--at-least", type=int, default=0, metavar="SEQUENCE", help="the last sequence that is known to be sealed"
    )
    verify.add_argument("--quick", action="store_true", help="compare the segments' headers and footers only")
    add_form(verify)
    verify.set_defaults(run=_verify)
    show = commands.add_parser("show", help="list the segments")
    show.description = "List the segments of an archive with their ranges and digests."
    show.add_argument("folder", type=Path, metavar="FOLDER", help="the archive's folder")
    add_form(show)
    show.set_defaults(run=_show)
    archive_erase.fill(commands)
    add_export(commands)


def _verify(arguments: argparse.Namespace) -> Exit:
    from handrail.visibility.archive.folder import Folder
    from handrail.visibility.archive.verdict_log import verify_verdicts
    from handrail.visibility.archive.verify import verify

    folder = existing(arguments.folder)
    findings = list(verify(Folder(folder), at_least=arguments.at_least, full=not arguments.quick))
    findings += verify_verdicts(Folder(folder))
    if form_of(arguments) == "json":
        print(json_text({"findings": [finding_json(each) for each in findings]}))
    elif findings:
        for each in findings:
            print(clean(str(each)))
    else:
        segments = len(Folder(folder).firsts())
        print(clean(f"{segments} segment{'' if segments == 1 else 's'}: nothing is wrong"))
    return Exit.FAILED if findings else Exit.OK


def _show(arguments: argparse.Namespace) -> Exit:
    from handrail.visibility.archive.errors import Damaged
    from handrail.visibility.archive.folder import Folder
    from handrail.visibility.archive.segment_file import opened, read_segment

    folder = Folder(existing(arguments.folder))
    found: list[Segment] = []
    damaged: list[Finding] = []
    for first in folder.firsts():
        try:
            with opened(folder.file(first)) as file:
                found.append(read_segment(file, folder.file(first).name))
        except Damaged as error:
            damaged.append(error.finding)
    _print(form_of(arguments), found, damaged)
    return Exit.FAILED if damaged else Exit.OK


def _print(form: str, segments: Iterable[Segment], damaged: Iterable[Finding]) -> None:
    if form == "json":
        shown = [
            {"first": each.first, "last": each.last, "messages": each.footer.count, "digest": each.digest}
            for each in segments
        ]
        print(json_text({"segments": shown, "findings": [finding_json(each) for each in damaged]}))
        return
    for each in segments:
        print(clean(f"{each.first} to {each.last}: {each.footer.count} messages, SHA-256 {each.digest}"))
    for finding in damaged:
        print(clean(str(finding)))
