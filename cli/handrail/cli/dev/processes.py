"""Child processes that end with this one, whatever ends it."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

_PR_SET_PDEATHSIG = 1
_TICK = 0.02


class StartError(Exception):
    """Something could not be started; the text says what and why."""


class Child:
    """A child process in a session of its own, so that Ctrl-C reaches it through us alone; its output goes to a log.

    On Linux the kernel kills it when the thread that started it ends, which is why only the main thread may start one:
    then it outlives nothing, not even a SIGKILL of this process.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self._command = list(command)
        self._environment = dict(os.environ if environment is None else environment)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._log_begins_at = 0

    def start(self) -> None:
        """Start it; StartError where the program can't be run."""
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("children end with the thread that starts them: start them from the main thread")
        self.log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self.log.open("ab") as log:
                self._log_begins_at = log.tell()
                self._process = self._spawn(log)
        except OSError as error:
            raise StartError(f"{self.name} can't be started: {error}") from None

    @property
    def pid(self) -> int:
        """Its process id; 0 where it never ran."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """How it ended: negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self._process is None:
            return
        # Its own children, if any, are in its group.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def ended_within(self, seconds: float) -> bool:
        """Wait for its end; whether it came in time."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
        return not self.is_running

    def last_words(self, lines: int = 3) -> str:
        """The end of what it wrote to its log since it was started, on one line."""
        try:
            with self.log.open("rb") as log:
                log.seek(max(self._log_begins_at, self.log.stat().st_size - 4096))
                text = log.read().decode(errors="replace")
        except OSError:
            return ""
        return " | ".join(text.strip().splitlines()[-lines:]) or "it wrote nothing"

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=self._environment,
            cwd=self._folder,
            start_new_session=True,
            preexec_fn=_ends_with(os.getpid()),
        )


def stop(children: Sequence[Child], *, grace: float) -> None:
    """Ask children to end, all at once; who has not after `grace` seconds is killed."""
    for child in children:
        child.send(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for child in children:
        if not child.ended_within(deadline - time.monotonic()):
            child.kill()


def wait_until(ready: Callable[[], bool], child: Child, *, seconds: float) -> None:
    """Wait until `ready`; StartError with the end of its log where the child ends first, or takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not child.is_running:
            raise StartError(f"{child.name} ended at once: {child.last_words()} (log: {child.log})")
        if time.monotonic() > deadline:
            raise StartError(
                f"{child.name} was not ready within {seconds:g} s: {child.last_words()} (log: {child.log})"
            )
        time.sleep(_TICK)


def require_free(port: int, flag: str) -> None:
    """StartError where somebody listens on this port of the loopback; `flag` is what chooses another."""
    with socket.socket() as probe:
        # As servers do: a port whose last connections are still being forgotten is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(f"port {port} can't be used: {error.strerror}; {flag} 0 takes a free one") from None


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ends_with(parent: int) -> Callable[[], None] | None:
    """What a child does before it becomes its program: ask the kernel to be killed when its parent ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # it ended in between

    return prepare
