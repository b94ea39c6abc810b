"""`handrail contracts check`: lint, form, and what breaks the released contracts, in one list."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import yaml

from handrail.cli.arguments import Parsers, add_form, form_of
from handrail.cli.buf import CONFIG, FOUND, Buf, BufFinding
from handrail.cli.exits import CommandError, Exit
from handrail.cli.output import Output

RELEASED = Path("gen/released.binpb")
"""Where a project keeps its contracts as released."""

Finding = tuple[str, BufFinding]
"""Which part of the check found it: lint, format or breaking."""


def fill(verbs: Parsers) -> None:
    """Add the verb."""
    check = verbs.add_parser(
        "check", help="lint and form of the protos, and what breaks the released contracts", allow_abbrev=False
    )
    check.add_argument("--against", type=Path, metavar="IMAGE", help=f"the released contracts [default {RELEASED}]")
    add_form(check)
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> Exit:
    output = Output(form_of(arguments))
    released, skipped = _released(arguments.against)
    buf = Buf(Path.cwd())
    findings = list(_findings(buf, released))
    if output.is_json:
        listed = [{"check": check, **asdict(found)} for check, found in findings]
        output.document({"findings": listed, "skipped": [skipped] if skipped else []})
    else:
        for check, found in findings:
            output.text(f"{check}: {found}")
        if skipped:
            output.text(skipped)
        output.text(f"{len(buf.proto_files())} protos checked: {len(findings) or 'no'} findings")
    return Exit.FAILED if findings else Exit.OK


def _released(asked: Path | None) -> tuple[Path | None, str]:
    """The image to compare with, or why there is none."""
    if asked is not None:
        if not asked.is_file():
            text = f"there is no image {asked}; buf build --exclude-source-info -o FILE writes one"
            raise CommandError(text, Exit.USAGE)
        return asked, ""
    if RELEASED.is_file():
        return RELEASED, ""
    return None, (
        f"nothing is released yet ({RELEASED} is not there), so nothing can break; "
        f"buf build --exclude-source-info -o {RELEASED} releases the contracts as they stand"
    )


def _findings(buf: Buf, released: Path | None) -> Iterator[Finding]:
    lint = buf.findings("lint")
    yield from (("lint", found) for found in lint)
    if any(found.rule == "COMPILE" for found in lint):
        return  # the rest would say the same again
    yield from (("format", found) for found in _unformatted(buf))
    if released is not None:
        yield from (("breaking", found) for found in buf.findings("breaking", "--against", str(released)))


def _unformatted(buf: Buf) -> Iterator[BufFinding]:
    """Files that `buf format` would change, but for those that lint leaves out: they are somebody else's."""
    excluded = [argument for path in _ignored() for argument in ("--exclude-path", path)]
    done = buf.run("format", "--diff", "--exit-code", *excluded)
    if done.returncode not in (0, FOUND):
        raise CommandError(f"buf format: {done.stderr.decode(errors='replace').strip()}", Exit.USAGE)
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ ").split("\t")[0]
            yield BufFinding(path, 0, 0, "FORMAT", "is not in form: buf format --write puts it there")


def _ignored() -> list[str]:
    try:
        config = yaml.safe_load(Path(CONFIG).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # buf has said what is wrong with it
    lint = config.get("lint") if isinstance(config, dict) else None
    ignored = lint.get("ignore") if isinstance(lint, dict) else None
    paths = ignored if isinstance(ignored, list) else []
    return [path for path in paths if isinstance(path, str) and Path(path).exists()]
