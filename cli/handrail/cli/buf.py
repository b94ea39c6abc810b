"""Running buf: it compiles, lints and compares a project's protos."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from handrail.cli.exit_codes import CommandError, Exit

CONFIG = "buf.yaml"
FOUND = 100
"""buf's exit code where it has findings, as opposed to not having got that far."""

_MISSING = "imported file does not exist"


@dataclass(frozen=True, slots=True)
class BufFinding:
    """One line of buf's report; line and column count from 1, and are 0 where a whole file is meant."""

    path: str
    line: int
    column: int
    rule: str
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{place}: {self.text} [{self.rule}]"


class Buf:
    """buf in the folder of a project; CommandError with Exit.USAGE where there is no buf, or no project."""

    def __init__(self, folder: Path) -> None:
        if not (folder / CONFIG).is_file():
            raise CommandError(
                f"there is no {CONFIG} in {folder.resolve()}: run this in the folder of a project", Exit.USAGE
            )
        self._folder = folder
        self._program = _find()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Run a subcommand in the project's folder."""
        try:
            return subprocess.run([self._program, *arguments], cwd=self._folder, capture_output=True)
        except OSError as error:
            raise CommandError(f"{self._program} does not run: {error.strerror}", Exit.USAGE) from None

    def findings(self, *arguments: str) -> tuple[BufFinding, ...]:
        """What a subcommand finds; CommandError with Exit.USAGE where it does not get that far."""
        done = self.run(*arguments, "--error-format", "json")
        found = self._explained(done.stdout) or self._explained(done.stderr)
        if done.returncode not in (0, FOUND) or (done.returncode == FOUND and not found):
            raise CommandError(f"buf {arguments[0]}: {_reason(done.stderr)}", Exit.USAGE)
        return found

    def build(self) -> bytes:
        """The project's contracts as a descriptor set with imports; CommandError where they don't compile."""
        done = self.run("build", "--exclude-source-info", "--error-format", "json", "-o", "-#format=binpb")
        if done.returncode == 0:
            return done.stdout
        found = self._explained(done.stderr) + self._explained(done.stdout) if done.returncode == FOUND else ()
        if not found:
            raise CommandError(f"buf build: {_reason(done.stderr)}", Exit.USAGE)
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise CommandError(f"the contracts don't compile: {found[0]}{more}", Exit.USAGE)

    def _explained(self, output: bytes) -> tuple[BufFinding, ...]:
        """The findings in buf's output. Where imports are missing, each is told once, and nothing else: all that uses
        them fails too. Buf does not say which import it is: its line does."""
        found = tuple(_findings(output))
        missing: dict[str, list[BufFinding]] = defaultdict(list)
        for each in found:
            if each.text == _MISSING:
                missing[self._line(each)].append(each)
        return tuple(self._missing(line, places) for line, places in missing.items()) or found

    def _missing(self, line: str, places: Sequence[BufFinding]) -> BufFinding:
        others = f" ({len(places)} protos import it)" if len(places) > 1 else ""
        return replace(places[0], text=f"{_MISSING}: {line}{others}; if it is a third-party proto, {self._fetching()}")

    def _fetching(self) -> str:
        """What fetches third-party protos here."""
        try:
            rules = (self._folder / "Makefile").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            rules = ""
        if re.search(r"^protos\b[^=\n]*:(?!=)", rules, re.MULTILINE):
            return "fetch it with: make protos"
        return f"put it beside yours, or name its module under deps in {CONFIG} and fetch it with: buf dep update"

    def _line(self, found: BufFinding) -> str:
        try:
            lines = (self._folder / found.path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ""
        return lines[found.line - 1].strip(" ;") if 0 < found.line <= len(lines) else ""

    def proto_files(self) -> tuple[str, ...]:
        """The project's protos, third-party ones among them, as paths from its folder."""
        done = self.run("ls-files")
        if done.returncode:
            raise CommandError(f"buf ls-files: {_reason(done.stderr)}", Exit.USAGE)
        return tuple(done.stdout.decode().splitlines())


def _find() -> str:
    found = shutil.which("buf")
    beside = Path(sys.executable).with_name("buf.exe" if sys.platform == "win32" else "buf")
    if found is None and beside.is_file():
        found = str(beside)
    if found is None:
        raise CommandError(
            "buf is neither on PATH nor beside the interpreter: pip install buf-bin, or see "
            "https://buf.build/docs/cli/installation",
            Exit.USAGE,
        )
    return found


def _findings(output: bytes) -> Iterator[BufFinding]:
    for line in output.decode(errors="replace").splitlines():
        try:
            parsed = json.loads(line)
        except ValueError:
            continue
        if isinstance(parsed, dict) and "message" in parsed:
            yield BufFinding(
                path=str(parsed.get("path", "")),
                line=int(parsed.get("start_line", 0)),
                column=int(parsed.get("start_column", 0)),
                rule=str(parsed.get("type", "")),
                text=str(parsed["message"]),
            )


def _reason(stderr: bytes) -> str:
    lines: Sequence[str] = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return lines[0].removeprefix("Failure: ").strip() if lines else "failed and said nothing"
