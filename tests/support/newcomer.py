"""What a newcomer has: a page with commands, and a shell with nothing of this project in it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.contract.source import ROOT


def blocks(page: str) -> dict[str, str]:
    """The fenced blocks of a page of docs/ by language; those of one language together."""
    found: dict[str, str] = {}
    text = (ROOT / "docs" / page).read_text("utf-8")
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        found[language] = found.get(language, "") + block
    return found


class Shell:
    """A folder, an environment of its own, and what the page's commands leave there."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.folder = folder
        # Nothing of this process's environment but what a shell needs: no path of this project.
        self.env = {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.defpath}",
            "HOME": str(folder),
            "VIRTUAL_ENV": str(environment),
            "LANG": "C.UTF-8",
        }

    def run(self, script: str, *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run commands; those that fail end the test."""
        command = ["bash", "-eu", "-c", script]
        done = subprocess.run(
            command, cwd=self.folder, env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0 or not check, f"{script}\n{done.stdout}\n{done.stderr}"
        return done

    @contextmanager
    def running(self, command: str, *more: str) -> Iterator[str]:
        """Run a page's command until the end of the block; yields the first line that it prints."""
        assignments, words = [], command.split()
        while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
            assignments.append(words.pop(0).split("=", 1))
        with (self.folder.parent / f"{Path(words[0]).name}.errors").open("w+") as errors:
            process = subprocess.Popen(
                [*words, *more],
                executable=str(Path(self.env["VIRTUAL_ENV"]) / "bin" / words[0]),
                cwd=self.folder,
                env={**self.env, **dict(assignments)},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                errors.seek(0)
                assert line, errors.read()
                yield line
            finally:
                process.send_signal(signal.SIGTERM)
                process.communicate(timeout=60)

    @contextmanager
    def installation(self, command: str) -> Iterator[None]:
        """Run a page's `handrail dev` on free ports; sets what the page says to set in other terminals."""
        ports = ["--port", "0", "--nats-port", "0", "--console-port", "0", "--json"]
        with self.running(command, *ports, "--data", str(self.folder.parent / "data")) as line:
            ready = json.loads(line)
            self.env |= {"ADDRESS": ready["address"], "TOKENS": str(Path(ready["token_files"]["olga"]).parent)}
            yield
