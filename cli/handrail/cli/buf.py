"""Runs buf, which compiles, lints and compares a project's protos."""

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
"""buf's exit code when it has findings, as opposed to when it fails to run."""

_MISSING = "imported file does not exist"


@dataclass(frozen=True, slots=True)
class BufFinding:
    """One line of buf's report. Line and column count from 1; they are 0 for a finding on a whole file."""

    path: str
    line: int
    column: int
    rule: str
    text: str

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}:{self.column}" if self.line else self.path
        return f"{place}: {self.text} [{self.rule}]"


class Buf:
    """buf in a project's folder. Raises CommandError with Exit.USAGE if buf or the project is missing."""

    def __init__(self, folder: Path) -> None:
        if not (folder / CONFIG).is_file():
            raise CommandError(
                f"there is no {CONFIG} in {folder.resolve()}: run this in the folder of a project", Exit.USAGE
            )
        self._folder = folder
        self._program = _find()

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        """Runs a subcommand in the project's folder."""
        try:
            return subprocess.run([self._program, *arguments], cwd=self._folder, capture_output=True)
        except OSError as error:
            raise CommandError(f"{self._program} does not run: {error.strerror}", Exit.USAGE) from None

    def findings(self, *arguments: str) -> tuple[BufFinding, ...]:
        """Runs a subcommand and returns its findings. Raises CommandError with Exit.USAGE if it fails to run."""
        done = self.run(*arguments, "--error-format", "json")
        found = self._explained(done.stdout) or self._explained(done.stderr)
        if done.returncode not in (0, FOUND) or (done.returncode == FOUND and not found):
            raise CommandError(f"buf {arguments[0]}: {_reason(done.stderr)}", Exit.USAGE)
        return found

    def build(self) -> bytes:
        """Builds the contracts as a descriptor set with imports. Raises CommandError if they don't compile."""
        done = self.run("build", "--exclude-source-info", "--error-format", "json", "-o", "-#format=binpb")
        if done.returncode == 0:
            return done.stdout
        found = self._explained(done.stderr) + self._explained(done.stdout) if done.returncode == FOUND else ()
        if not found:
            raise CommandError(f"buf build: {_reason(done.stderr)}", Exit.USAGE)
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise CommandError(f"the contracts don't compile: {found[0]}{more}", Exit.USAGE)

    def _explained(self, output: bytes) -> tuple[BufFinding, ...]:
        """Parses the findings in buf's output. If imports are missing, it reports only those, each once: every use of
        them fails, too. buf does not name the import; the source line does."""
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
        """The command that fetches third-party protos in this project."""
        try:
            rules = (self._folder / "Makefile").read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            rules = ""
        if re.search(r"^protos\b[^=\n]*:(?!=)", rules, re.MULTILINE):
            return "fetch it with: make protos"
        return (
            "put it beside yours (handrail contracts vendor does so with some), or name its module under deps in "
            f"{CONFIG} and fetch it with: buf dep update"
        )

    def _line(self, found: BufFinding) -> str:
        try:
            lines = (self._folder / found.path).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError):
            return ""
        return lines[found.line - 1].strip(" ;") if 0 < found.line <= len(lines) else ""

    def proto_files(self) -> tuple[str, ...]:
        """Lists the project's protos, including third-party ones, as paths relative to its folder."""
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
    return lines[0].removeprefix("Failure: ").strip() if lines else "failed without a message"
