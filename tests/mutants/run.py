"""Breaks each promise on purpose and requires that its tests turn red: `make mutants`, or ARGS='p3 p8' for some.

Each patch in this folder is one mutant. The header above its diff says which promise it breaks, how, and which tests
must fail. A mutant is applied to a copy of the work tree, never to the work tree itself.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from queue import SimpleQueue

ROOT = Path(__file__).parents[2]
PATCHES = Path(__file__).parent

_HEADER = re.compile(r"Promise: (?P<promise>P[1-8])\nBreaks: (?P<breaks>.+)\n(?P<tests>(?:Test: \S.*\n)+)\n")
_TOUCHED = re.compile(r"^\+\+\+ b/(\S+)", re.MULTILINE)
_RED = re.compile(r"^FAILED (\S+)", re.MULTILINE)

_TESTS_FAILED = 1
"""pytest's exit status if tests ran and some failed; any other means that the tests themselves are broken."""

_SETTINGS = {"TEST_PATIENCE": "8", "CRASH_PARTS": "0,1,2"}
"""Tests wait only this many seconds, as a mutant may prevent the condition forever, and try all crash points."""

_LIMIT = 180
"""Seconds that the tests of one mutant may take."""

_LIMIT_OF_ALL = 1200
"""Seconds that the tests of all mutants may take without any."""


class MutantError(Exception):
    """A patch that can't be used. The text says why."""


@dataclass(frozen=True)
class Mutant:
    """One way to break a promise."""

    path: Path
    promise: str
    breaks: str
    tests: tuple[str, ...]
    touched: tuple[str, ...]

    @property
    def name(self) -> str:
        """The patch's name."""
        return self.path.stem

    @classmethod
    def read(cls, path: Path) -> Mutant:
        """Parses a patch and its header. Raises MutantError if the header is malformed."""
        text = path.read_text("utf-8")
        header = _HEADER.match(text)
        if header is None:
            raise MutantError(f"{path.name} does not begin with Promise:, Breaks:, Test: and an empty line")
        tests = tuple(line.removeprefix("Test: ") for line in header["tests"].splitlines())
        return cls(path, header["promise"], header["breaks"], tests, tuple(_TOUCHED.findall(text)))

    def complaint(self, folder: Path) -> str:
        """Says why the patch does not apply to the tree in `folder`; empty if it does."""
        return _git(folder, "apply", "--check", str(self.path)).stderr.strip()


def mutants() -> list[Mutant]:
    """All mutants, by name."""
    return [Mutant.read(path) for path in sorted(PATCHES.glob("*.patch"))]


class Verdict(Enum):
    """The result of a mutant's tests."""

    KILLED = "killed"
    SURVIVED = "SURVIVED"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Result:
    """A verdict with its reason: the test that failed, or what went wrong."""

    verdict: Verdict
    why: str
    seconds: float
    output: str = ""


class Scratch:
    """A copy of the work tree. Tests run in it import the code of the copy, not the installed one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _git(ROOT, "ls-files", "-z").stdout.split("\0"):
            if name and (ROOT / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, folder / name)
        settings = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
        self._roots: list[str] = settings["tool"]["hatch"]["build"]["dev-mode-dirs"]
        self._changes = 0

    def check_imports(self, touched: Iterable[str]) -> None:
        """Raises MutantError if Python would import a touched module from elsewhere."""
        modules = [module for path in touched if (module := self._module(path))]
        show = "import importlib, sys\nfor name in sys.argv[1:]: print(importlib.import_module(name).__file__)"
        done = self._run([sys.executable, "-c", show, *modules])
        files = done.stdout.split()
        elsewhere = [file for file in files if not Path(file).is_relative_to(self.folder)]
        if done.returncode or len(files) != len(modules) or elsewhere:
            raise MutantError(f"Python would not import the copy's code: {elsewhere or done.stderr}")

    def test(self, tests: Sequence[str], mutant: Mutant | None = None) -> Result:
        """Runs tests with or without a mutant applied, and restores the copy afterwards."""
        began = time.monotonic()
        if mutant is not None and (complaint := self._apply(mutant)):
            return Result(Verdict.BROKEN, f"the patch no longer applies: {complaint.splitlines()[0]}", 0)
        limit = _LIMIT_OF_ALL if mutant is None else _LIMIT
        try:
            done = self._run([sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests], limit)
        except subprocess.TimeoutExpired:
            return Result(Verdict.BROKEN, f"its tests did not end within {limit} s", time.monotonic() - began)
        finally:
            if mutant is not None:
                self._apply(mutant, "--reverse")
        seconds, output = time.monotonic() - began, done.stdout + done.stderr
        red = _RED.search(done.stdout)
        if done.returncode == _TESTS_FAILED and red is not None:
            return Result(Verdict.KILLED, red[1], seconds, output)
        if done.returncode == 0:
            return Result(Verdict.SURVIVED, "its tests stayed green", seconds, output)
        return Result(Verdict.BROKEN, f"pytest ended with status {done.returncode}", seconds, output)

    def _apply(self, mutant: Mutant, *options: str) -> str:
        done = _git(self.folder, "apply", *options, str(mutant.path))
        for name in mutant.touched:
            # Python recognises stale bytecode by the source's size and time in seconds: no two versions may share both.
            self._changes += 1
            os.utime(self.folder / name, (self._changes, self._changes))
        return done.stderr if done.returncode else ""

    def _run(self, command: Sequence[str], limit: float = _LIMIT) -> subprocess.CompletedProcess[str]:
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("HANDRAIL_", "OTEL_"))}
        path = os.pathsep.join(str(self.folder / root) for root in (*self._roots, "."))
        return subprocess.run(
            command,
            cwd=self.folder,
            env={**plain, **_SETTINGS, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )

    def _module(self, path: str) -> str:
        """The module of a touched file; empty if it is not a module."""
        root = next((root for root in self._roots if path.startswith(f"{root}/")), None)
        return (
            path.removeprefix(f"{root}/").removesuffix(".py").replace("/", ".") if root and path.endswith(".py") else ""
        )


def hunt(chosen: Sequence[Mutant], *, jobs: int) -> bool:
    """Tests every mutant and prints a table. Returns whether all were killed."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder, ThreadPoolExecutor(jobs) as pool:
        idle: SimpleQueue[Scratch] = SimpleQueue()
        for number in range(jobs):
            idle.put(Scratch(Path(folder).resolve() / f"{number}"))

        def test(tests: Sequence[str], mutant: Mutant | None = None) -> Result:
            scratch = idle.get()
            try:
                return scratch.test(tests, mutant)
            finally:
                idle.put(scratch)

        scratch = idle.get()
        scratch.check_imports({path for mutant in chosen for path in mutant.touched})
        idle.put(scratch)
        unbroken = pool.submit(test, sorted({each for mutant in chosen for each in mutant.tests}))
        running = [(mutant, pool.submit(test, mutant.tests, mutant)) for mutant in chosen]
        results = []
        for mutant, future in running:
            results.append(result := future.result())
            verdict, seconds = result.verdict.value, f"{result.seconds:.1f} s"
            print(f"{mutant.promise}  {verdict:9} {seconds:>7}  {mutant.breaks}  [{result.why}]", flush=True)
            if result.verdict is not Verdict.KILLED:
                print(_indented(result.output))
        sane = unbroken.result()
    if sane.verdict is not Verdict.SURVIVED:
        print(f"The tests fail without any mutant, too: {sane.why}\n{_indented(sane.output)}")
        return False
    killed = sum(result.verdict is Verdict.KILLED for result in results)
    print(f"{killed} of {len(results)} mutants killed; the same tests pass without a mutant ({sane.seconds:.0f} s)")
    return killed == len(results)


def main(arguments: Sequence[str]) -> int:
    """Returns 0 if all were killed, 1 if one survived, 2 if one can't be used."""
    parser = argparse.ArgumentParser(description="Break each promise on purpose: its tests have to turn red.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="patches to try, by the start of their names; all")
    parser.add_argument("--jobs", type=int, default=min(4, os.cpu_count() or 1), help="how many to try at a time")
    given = parser.parse_args(arguments)
    try:
        chosen = [mutant for mutant in mutants() if mutant.name.startswith(tuple(given.names) or ("",))]
        if not chosen:
            raise MutantError(f"no patch begins with {' or '.join(given.names)}")
        return 0 if hunt(chosen, jobs=given.jobs) else 1
    except MutantError as error:
        print(f"mutants: {error}", file=sys.stderr)
        return 2


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # If the copy lies within another work tree, git must ignore that one.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    return subprocess.run(["git", *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _indented(text: str, lines: int = 40) -> str:
    return "\n".join(f"      {line}" for line in text.strip().splitlines()[-lines:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
