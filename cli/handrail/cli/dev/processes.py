"""Child processes that end together with this process, however it ends."""

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
    """A child process in its own session, so that only this process passes Ctrl-C on; its output goes to a log.

    On Linux the kernel kills it when the thread that started it ends, so only the main thread may start one. The child
    then never outlives this process, not even after a SIGKILL.
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
        """Starts the process; raises StartError if the program can't be run."""
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
        """The process id; 0 if it never ran."""
        return self._process.pid if self._process is not None else 0

    @property
    def is_running(self) -> bool:
        """Tells whether the process runs."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """The exit status, negative for a signal; None while it runs."""
        return None if self._process is None else self._process.poll()

    def send(self, number: signal.Signals) -> None:
        """Sends a signal if the process runs."""
        if self.is_running:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Sends SIGKILL and waits for the end."""
        if self._process is None:
            return
        # Its own children, if any, are in its process group.
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()

    def ended_within(self, seconds: float) -> bool:
        """Waits for the end; returns whether it came in time."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, seconds))
        return not self.is_running

    def last_words(self, lines: int = 3) -> str:
        """Returns the end of its log since its start, on one line."""
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
    """Asks children to end, all at once; kills those that still run after `grace` seconds."""
    for child in children:
        child.send(signal.SIGTERM)
    deadline = time.monotonic() + grace
    for child in children:
        if not child.ended_within(deadline - time.monotonic()):
            child.kill()


def wait_until(ready: Callable[[], bool], child: Child, *, seconds: float) -> None:
    """Waits until `ready`; raises StartError with the end of its log if the child ends first or takes too long."""
    deadline = time.monotonic() + seconds
    while not ready():
        if not child.is_running:
            raise StartError(f"{child.name} ended at once: {child.last_words()} (log: {child.log})")
        if time.monotonic() > deadline:
            raise StartError(f"{child.name} was not ready after {seconds:g} s: {child.last_words()} (log: {child.log})")
        time.sleep(_TICK)


def require_free(port: int, flag: str) -> None:
    """Raises StartError if this loopback port is in use; `flag` is the option that chooses another one."""
    with socket.socket() as probe:
        # As servers do: a port with connections in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise StartError(f"port {port} can't be used: {error.strerror}; {flag} 0 takes a free one") from None


def listens(address: str) -> bool:
    """Tells whether somebody listens on `host:port`."""
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def free_port() -> int:
    """Returns a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _ends_with(parent: int) -> Callable[[], None] | None:
    """Returns the child's preparation before exec: it asks the kernel to be killed when its parent ends."""
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)

    def prepare() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)  # the parent ended in between

    return prepare
