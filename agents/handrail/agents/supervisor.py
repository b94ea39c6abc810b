"""Worker processes of the same agents: started, restarted when they die, stopped together."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

_logger = logging.getLogger(__name__)

OK, FAILED, BAD_DECLARATION = 0, 1, 2
"""Exit statuses: stopped as asked; the broker or a source failed; the agent's code doesn't fit, and a restart can't
help."""

SAID_BADLY_DECLARED = 78
"""What a worker process returns to its supervisor instead of BAD_DECLARATION: handlers may end a process with any small
number (EX_CONFIG of sysexits.h)."""

WITHOUT_SOURCES = "HANDRAIL_AGENT_WITHOUT_SOURCES"
LIFELINE = "HANDRAIL_AGENT_LIFELINE"
"""Environment variables of a worker process: that another one runs the sources, and the pipe to watch."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_RESTART_AFTER = 1.0
_LAST_RESTART_AFTER = 30.0
_STEADY = 60.0
"""Seconds: the wait before a dead worker is restarted, doubled up to the last; and when it counts as steady."""


class Supervisor:
    """Several worker processes of the same agents, each `module:name`. The first one runs the agents' sources.

    They read from a pipe that nobody writes to: when this process ends, however it ends, the pipe closes, and they
    stop.
    """

    def __init__(self, paths: Sequence[str], workers: int, environment: dict[str, str]) -> None:
        self._paths = paths
        self._workers = workers
        self._environment = environment
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started_at: dict[int, float] = {}
        self._waits: dict[int, float] = {}
        self._stopping = threading.Event()
        self._lifeline, self._own_end = os.pipe()

    def run(self) -> int:
        """Runs until SIGTERM or SIGINT; returns an exit status. A worker that dies is restarted after a wait."""
        for each in _STOP_SIGNALS:
            signal.signal(each, self._on_signal)
        try:
            for number in range(self._workers):
                self._start(number)
            return self._watch()
        finally:
            os.close(self._own_end)
            os.close(self._lifeline)

    def _on_signal(self, number: int, frame: object) -> None:
        self._stopping.set()

    def _start(self, number: int) -> None:
        environment = {**self._environment, LIFELINE: str(self._lifeline)}
        if number > 0:
            environment[WITHOUT_SOURCES] = "1"
        self._processes[number] = subprocess.Popen(
            [sys.executable, "-m", "handrail.agents.runner", *self._paths],
            env=environment,
            pass_fds=[self._lifeline],
            # Ctrl-C reaches the whole foreground group; only the supervisor signals the workers, once.
            start_new_session=True,
        )
        self._started_at[number] = time.monotonic()

    def _watch(self) -> int:
        status = OK
        restart_at: dict[int, float] = {}
        while not self._stopping.wait(0.1):
            for number, process in list(self._processes.items()):
                code = process.poll()
                if code is None:
                    continue
                del self._processes[number]
                if code == SAID_BADLY_DECLARED:
                    self._stopping.set()
                    status = BAD_DECLARATION
                    break
                wait = self._next_wait(number)
                _logger.warning(
                    "worker %d of %s ended with status %d; restarting in %g s",
                    number,
                    ", ".join(self._paths),
                    code,
                    wait,
                )
                restart_at[number] = time.monotonic() + wait
            for number in [number for number, due in restart_at.items() if time.monotonic() >= due]:
                del restart_at[number]
                self._start(number)
        return max(status, self._end())

    def _next_wait(self, number: int) -> float:
        steady = time.monotonic() - self._started_at[number] > _STEADY
        wait = _RESTART_AFTER if steady else self._waits.get(number, _RESTART_AFTER)
        self._waits[number] = min(wait * 2, _LAST_RESTART_AFTER)
        return wait

    def _end(self) -> int:
        for process in self._processes.values():
            process.send_signal(signal.SIGTERM)
        return FAILED if any(process.wait() for process in self._processes.values()) else OK
