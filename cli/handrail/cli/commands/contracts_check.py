"""`handrail contracts check`: lint, format, breaking changes, and unknown names in the consumers file."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path

import yaml

from handrail.cli.arguments import Parsers, add_form, form_of
from handrail.cli.baseline import build_project
from handrail.cli.buf import CONFIG, FOUND, Buf, BufFinding
from handrail.cli.consumers import unknown_names
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.released import RELEASED, is_in, release_findings

PARTS = ("lint", "format", "breaking")

Finding = tuple[str, BufFinding]
"""The part of the check that found it."""


def fill(verbs: Parsers) -> None:
    """Adds the verb."""
    check = verbs.add_parser("check", help="lint the protos, check their format, and find breaking changes")
    check.add_argument("--against", type=Path, metavar="IMAGE", help=f"the released contracts [default {RELEASED}]")
    check.add_argument(
        "--only", choices=PARTS, action="append", help="run only this part of the check, may be repeated [default all]"
    )
    add_form(check)
    check.set_defaults(run=_check)


def _check(arguments: argparse.Namespace) -> Exit:
    output = Output(form_of(arguments))
    released, skipped = _released(arguments.against)
    buf = Buf(Path.cwd())
    findings = list(_findings(buf, released, arguments.only or PARTS))
    if output.is_json:
        listed = [{"check": check, **asdict(found)} for check, found in findings]
        output.document({"findings": listed, "skipped": [skipped] if skipped else []})
    else:
        for check, found in findings:
            output.text(f"{check}: {found}")
        if skipped:
            output.text(skipped)
        output.text(f"{len(buf.proto_files())} protos checked: {_counted(len(findings))}")
    return Exit.FAILED if findings else Exit.OK


def _counted(findings: int) -> str:
    return "1 finding" if findings == 1 else f"{findings or 'no'} findings"


def _released(asked: Path | None) -> tuple[Path | None, str]:
    """Returns the image to compare with, or the reason why there is none."""
    if asked is not None:
        if not asked.is_file():
            text = f"image {asked} does not exist; buf build --exclude-source-info -o FILE writes one"
            raise CommandError(text, Exit.USAGE)
        return asked, ""
    if RELEASED.is_file():
        return RELEASED, ""
    return None, (
        f"nothing is released yet ({RELEASED} does not exist), so nothing can break; "
        f"buf build --exclude-source-info -o {RELEASED} releases the current contracts"
    )


def _findings(buf: Buf, released: Path | None, parts: Collection[str]) -> Iterator[Finding]:
    if "lint" in parts:
        lint = buf.findings("lint")
        yield from (("lint", found) for found in lint)
        if any(found.rule == "COMPILE" for found in lint):
            return  # the other parts would repeat the same error
    if "format" in parts:
        yield from (("format", found) for found in _unformatted(buf))
    if "breaking" in parts:
        yield from (("breaking", found) for found in _breaking(buf, released))


def _breaking(buf: Buf, released: Path | None) -> Iterator[BufFinding]:
    if released is not None:
        found = buf.findings("breaking", "--against", str(released))
        yield from found
        if any(each.rule == "COMPILE" for each in found):
            return
    now = build_project()
    if released is not None:
        yield from release_findings(released, now, buf.proto_files(), _ignored("breaking"))
    yield from unknown_names(now)


def _unformatted(buf: Buf) -> Iterator[BufFinding]:
    """Yields files that `buf format` would change, except those that lint ignores: they are third-party files."""
    ignored = _ignored("lint")
    done = buf.run("format", "--diff", "--exit-code")
    if done.returncode not in (0, FOUND):
        raise CommandError(f"buf format: {done.stderr.decode(errors='replace').strip()}", Exit.USAGE)
    for line in done.stdout.decode(errors="replace").splitlines():
        if line.startswith("+++ "):
            path = line.removeprefix("+++ ").split("\t")[0]
            if is_in(path, ignored):
                continue
            yield BufFinding(path, 0, 0, "FORMAT", "is not formatted: run buf format --write")


def _ignored(part: str) -> list[str]:
    """Returns the paths that the project's configuration excludes from a part."""
    try:
        config = yaml.safe_load(Path(CONFIG).read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return []  # buf has reported the error
    section = config.get(part) if isinstance(config, dict) else None
    ignored = section.get("ignore") if isinstance(section, dict) else None
    paths = ignored if isinstance(ignored, list) else []
    return [path for path in paths if isinstance(path, str) and Path(path).exists()]
