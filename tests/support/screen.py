"""Commands as people see them: on a terminal of 80 columns."""

from __future__ import annotations

import os
import pty
import subprocess
from collections.abc import Mapping
from contextlib import suppress

from tests.support.dev import HANDRAIL, environment

COLUMNS = 80


class Screen:
    """A command whose output goes to a terminal. Use it as a context manager: it is ended with the block."""

    def __init__(self, *words: str, env: Mapping[str, str]) -> None:
        self._master, slave = pty.openpty()
        shown = environment(**env, COLUMNS=str(COLUMNS), LINES="40", TERM="xterm")
        self.process = subprocess.Popen([*HANDRAIL, *words], env=shown, stdout=slave, stderr=slave)
        os.close(slave)
        self.text = ""

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *raised: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._master)

    def until(self, words: str) -> str:
        """What is shown up to these words, which have to come."""
        while words not in self.text:
            more = self._more()
            assert more, f'it ended without "{words}":\n{self.text}'
        return self.text

    def rest(self) -> str:
        """Everything that is shown until the command ends."""
        while self._more():
            pass
        self.process.wait()
        return self.text

    def _more(self) -> bool:
        with suppress(OSError):  # EIO once the command has ended
            read = os.read(self._master, 65536).decode(errors="replace")
            self.text += read
            return bool(read)
        return False
