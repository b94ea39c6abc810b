"""Runs an agent: as one worker in this process, or as several processes that are restarted when they die.

`python -m handrail.agents.runner MODULE:AGENT` runs one worker, on the broker from the environment.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

import uvloop

from handrail.agents.declaration import Declaration
from handrail.agents.errors import DeclarationError
from handrail.agents.supervisor import (
    BAD_DECLARATION,
    FAILED,
    LIFELINE,
    OK,
    SAID_BADLY_DECLARED,
    WITHOUT_SOURCES,
    Supervisor,
)
from handrail.agents.worker import Worker
from handrail.mesh import collector, telemetry
from handrail.mesh.bus.bus_settings import BusSettings
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean, clean_lines
from handrail.mesh.setting import SettingError, Settings
from handrail.mesh.settings import bus_settings
from handrail.mesh.telemetry import logs

_logger = logging.getLogger(__name__)

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def find_agent(path: str) -> Declaration:
    """Returns the agent that `module:name` names. The working directory is on the path.

    Raises DeclarationError if it does not exist, or its module can't be imported; the error says what went wrong.
    """
    module_name, _, name = path.partition(":")
    if not module_name or not name:
        raise DeclarationError([f'"{path}" is not module:agent, e.g. demos.payments.ledger:agent'])
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise DeclarationError([f"no module {module_name} was found"]) from error
        raise DeclarationError([_why_not_imported(module_name, error)]) from error
    except Exception as error:
        raise DeclarationError([_why_not_imported(module_name, error)]) from error
    agent = getattr(module, name, None)
    if not isinstance(agent, Declaration):
        raise DeclarationError([f"module {module_name} has no Agent named {name}"])
    return agent


def _why_not_imported(module_name: str, error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    # A syntax error names its own location; the last frame would be the importer's.
    where = "" if isinstance(error, SyntaxError) else f" ({place.filename}, line {place.lineno})"
    return f"module {module_name} can't be imported: {type(error).__name__}: {error}{where}"


def run_here(agent: Declaration, settings: BusSettings | None = None) -> int:
    """Runs one worker in this process until SIGTERM or SIGINT (a second one kills it); returns an exit status."""
    if not logging.getLogger().handlers:
        logs.configure()
    telemetry.configure(agent.name)
    abandoned = 0
    try:
        abandoned = uvloop.run(_run(agent, settings or bus_settings(Settings.of_process(), agent.name)))
    except SettingError as error:
        print(f"agent {agent.name}: {clean(str(error))}", file=sys.stderr)
        return BAD_DECLARATION
    except DeclarationError as error:
        for problem in error.problems:
            print(f"agent {agent.name}: {clean(problem)}", file=sys.stderr)
        return BAD_DECLARATION
    except HandrailError as error:
        print(f"agent {agent.name}: {clean(error.text)}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return FAILED
    finally:
        telemetry.shutdown()
    if abandoned:
        # Python would wait for their threads, perhaps forever.
        logging.shutdown()
        os._exit(OK)
    return OK


def run_workers(path: str, *, workers: int, environment: Mapping[str, str] | None = None) -> int:
    """Runs `workers` processes of the agent `module:name` until SIGTERM or SIGINT; returns an exit status.

    They get `environment`, by default that of this process. Raises DeclarationError if the agent does not exist.
    """
    find_agent(path)
    return Supervisor(path, workers, dict(os.environ if environment is None else environment)).run()


async def _run(agent: Declaration, settings: BusSettings) -> int:
    """Runs a worker until a signal; returns how many handlers were still running at the end."""
    worker = Worker(agent, settings, sources=not os.environ.get(WITHOUT_SOURCES))
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
    lifeline = os.environ.get(LIFELINE)
    if lifeline is not None:
        loop.add_reader(int(lifeline), _once(loop, int(lifeline), stop))
    calming = asyncio.ensure_future(_calm_collector(worker))
    try:
        await running
    except asyncio.CancelledError:
        _logger.warning("agent %s was asked twice to stop: ended while handlers were running", agent.name)
    finally:
        calming.cancel()
    return worker.abandoned


async def _calm_collector(worker: Worker) -> None:
    await worker.ready.wait()
    collector.calm()


def _once(loop: asyncio.AbstractEventLoop, descriptor: int, stop: Callable[[], None]) -> Callable[[], None]:
    def closed() -> None:
        loop.remove_reader(descriptor)
        stop()

    return closed


def main(arguments: list[str]) -> int:
    """Runs one worker of the agent that the only argument names."""
    if len(arguments) != 1:
        print("usage: python -m handrail.agents.runner MODULE:AGENT", file=sys.stderr)
        return BAD_DECLARATION
    try:
        agent = find_agent(arguments[0])
    except DeclarationError as error:
        print(clean_lines(str(error)), file=sys.stderr)
        status = BAD_DECLARATION
    else:
        # If a handler's C code crashes, at least its location is printed.
        faulthandler.enable()
        status = run_here(agent)
    return SAID_BADLY_DECLARED if status == BAD_DECLARATION and LIFELINE in os.environ else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
