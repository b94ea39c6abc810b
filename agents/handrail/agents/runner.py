"""Running an agent: as one worker in this process, or as several processes that are started again when they die.

python -m handrail.agents.runner MODULE:AGENT      one worker; its broker is the one of the environment
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

from handrail.agents.agent import Agent
from handrail.agents.errors import DeclarationError
from handrail.agents.worker import Worker
from handrail.mesh import telemetry
from handrail.mesh.connection import BusSettings
from handrail.mesh.errors import HandrailError

_logger = logging.getLogger(__name__)

OK, FAILED, BAD_DECLARATION = 0, 1, 2
"""Exit statuses: stopped as asked; the broker, or a source, failed; the agent's code doesn't fit, so that starting it
again can't help."""

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_RESTART_AFTER = 1.0
_LAST_RESTART_AFTER = 30.0
_STEADY = 60.0
"""Seconds: the wait before a dead worker is started again, doubled up to the last; when it counts as steady."""

_WITHOUT_SOURCES = "HANDRAIL_AGENT_WITHOUT_SOURCES"
_LIFELINE = "HANDRAIL_AGENT_LIFELINE"


def find_agent(path: str) -> Agent:
    """The agent that `module:name` names; DeclarationError where there is none. The working folder is on the path."""
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise DeclarationError([f"«{path}» is not module:agent, e.g. demos.payments.ledger:agent"])
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise DeclarationError([f"there is no module {module_name} here"]) from error
        raise
    agent = getattr(module, name, None)
    if not isinstance(agent, Agent):
        raise DeclarationError([f"module {module_name} has no Agent called {name}"])
    return agent


def settings_from(environment: Mapping[str, str], agent: str) -> BusSettings:
    """Where the broker is, and as whom the agent connects, as the environment says.

    HANDRAIL_NATS (servers, with commas in between; default nats://127.0.0.1:4222), HANDRAIL_NATS_USER (default: the
    agent's name, where there is a password), HANDRAIL_NATS_PASSWORD, HANDRAIL_NATS_CA, HANDRAIL_NATS_CERT,
    HANDRAIL_NATS_KEY.
    """

    def path(name: str) -> Path | None:
        return Path(environment[name]) if environment.get(name) else None

    servers = environment.get("HANDRAIL_NATS") or "nats://127.0.0.1:4222"
    password = environment.get("HANDRAIL_NATS_PASSWORD", "")
    return BusSettings(
        servers=tuple(server.strip() for server in servers.split(",") if server.strip()),
        name=agent,
        user=environment.get("HANDRAIL_NATS_USER") or (agent if password else ""),
        password=password,
        tls_ca=path("HANDRAIL_NATS_CA"),
        tls_cert=path("HANDRAIL_NATS_CERT"),
        tls_key=path("HANDRAIL_NATS_KEY"),
    )


def run_here(agent: Agent, settings: BusSettings | None = None) -> int:
    """Run one worker in this process until SIGTERM or SIGINT (a second one ends it at once); return an exit status."""
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    telemetry.configure(agent.name)
    try:
        uvloop.run(_run(agent, settings or settings_from(os.environ, agent.name)))
    except DeclarationError as error:
        for problem in error.problems:
            print(f"agent {agent.name}: {problem}", file=sys.stderr)
        return BAD_DECLARATION
    except HandrailError as error:
        print(f"agent {agent.name}: {error.text}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    finally:
        telemetry.shutdown()
    return OK


def run_workers(path: str, *, workers: int, environment: Mapping[str, str] | None = None) -> int:
    """Run `workers` processes of the agent `module:name` until SIGTERM or SIGINT, and return an exit status.

    A worker that dies is started again, after a wait that grows while it keeps dying. The first one runs the agent's
    sources. `environment` is theirs, by default this process'.
    """
    find_agent(path)
    return _Supervisor(path, workers, dict(os.environ if environment is None else environment)).run()


async def _run(agent: Agent, settings: BusSettings) -> None:
    worker = Worker(agent, settings, sources=not os.environ.get(_WITHOUT_SOURCES))
    running = asyncio.ensure_future(worker.run())
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            worker.stop()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    for each in _STOP_SIGNALS:
        loop.add_signal_handler(each, stop)
    lifeline = os.environ.get(_LIFELINE)
    if lifeline is not None:
        loop.add_reader(int(lifeline), _once(loop, int(lifeline), stop))
    try:
        await running
    except asyncio.CancelledError:
        _logger.warning("agent %s was asked twice to stop: ended with handlers at work", agent.name)


def _once(loop: asyncio.AbstractEventLoop, descriptor: int, stop: Callable[[], None]) -> Callable[[], None]:
    def closed() -> None:
        loop.remove_reader(descriptor)
        stop()

    return closed


class _Supervisor:
    """Several worker processes of one agent. They read from a pipe that nobody writes to: it ends with this process."""

    def __init__(self, path: str, workers: int, environment: dict[str, str]) -> None:
        self._path = path
        self._workers = workers
        self._environment = environment
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._started_at: dict[int, float] = {}
        self._waits: dict[int, float] = {}
        self._stopping = threading.Event()
        self._lifeline, self._own_end = os.pipe()

    def run(self) -> int:
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
        environment = {**self._environment, _LIFELINE: str(self._lifeline)}
        if number > 0:
            environment[_WITHOUT_SOURCES] = "1"
        self._processes[number] = subprocess.Popen(
            [sys.executable, "-m", "handrail.agents.runner", self._path],
            env=environment,
            pass_fds=[self._lifeline],
            # Ctrl-C goes to the whole foreground group: the workers are told by us alone, once.
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
                if code == BAD_DECLARATION:
                    self._stopping.set()
                    status = BAD_DECLARATION
                    break
                wait = self._next_wait(number)
                _logger.warning("worker %d of %s ended with status %d; again in %g s", number, self._path, code, wait)
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


def main(arguments: list[str]) -> int:
    """Run one worker of the agent that the one argument names."""
    if len(arguments) != 1:
        print("usage: python -m handrail.agents.runner MODULE:AGENT", file=sys.stderr)
        return BAD_DECLARATION
    try:
        agent = find_agent(arguments[0])
    except DeclarationError as error:
        print(error, file=sys.stderr)
        return BAD_DECLARATION
    return run_here(agent)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
