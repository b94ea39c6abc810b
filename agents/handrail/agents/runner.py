"""Runs agents: one worker of each in this process, or several such processes that are restarted when they die.

`python -m handrail.agents.runner MODULE:AGENT …` runs one worker of each, on the broker from the environment.
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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from handrail.agents.company import Company
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
from handrail.agents.watchdog import Watchdog
from handrail.agents.worker import Worker
from handrail.mesh import collector, event_loop, telemetry
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


def find_agents(paths: Sequence[str]) -> list[Declaration]:
    """Returns the agents that these paths name. Raises DeclarationError like `find_agent`, and if one comes twice."""
    agents = [find_agent(path) for path in paths]
    names = [agent.name for agent in agents]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DeclarationError([f"agent {name} is named twice; for more workers use --workers" for name in twice])
    return agents


def run_here(agents: Sequence[Declaration], settings: Mapping[str, BusSettings] | None = None) -> int:
    """Runs a worker of each agent in this process until SIGTERM or SIGINT (a second one kills them).

    `settings` are those of each agent by name, by default from the environment. If one worker fails, all stop. Returns
    an exit status.
    """
    if not logging.getLogger().handlers:
        logs.configure()
    names = [agent.name for agent in agents]
    try:
        telemetry.configure("+".join(names))
        of_process = Settings.of_process()
        settings = settings or {name: bus_settings(of_process, name) for name in names}
        abandoned, errors = event_loop.run(_run(agents, settings))
    except SettingError as error:
        print(f"agent {', '.join(names)}: {clean(str(error))}", file=sys.stderr)
        return BAD_DECLARATION
    except KeyboardInterrupt:
        return FAILED
    finally:
        telemetry.shutdown()
    for name, fault in errors.items():
        for problem in fault.problems if isinstance(fault, DeclarationError) else [fault.text]:
            print(f"agent {name}: {clean(problem)}", file=sys.stderr)
    if any(isinstance(fault, DeclarationError) for fault in errors.values()):
        return BAD_DECLARATION
    if errors:
        return FAILED
    if abandoned:
        # Python would wait for their threads, perhaps forever.
        logging.shutdown()
        os._exit(OK)
    return OK


def run_workers(paths: Sequence[str], *, workers: int, environment: Mapping[str, str] | None = None) -> int:
    """Runs `workers` processes of the agents, each `module:name`, until SIGTERM or SIGINT; returns an exit status.

    They get `environment`, by default that of this process. Raises DeclarationError like `find_agents`.
    """
    find_agents(paths)
    return Supervisor(paths, workers, dict(os.environ if environment is None else environment)).run()


async def _run(
    agents: Sequence[Declaration], settings: Mapping[str, BusSettings]
) -> tuple[int, dict[str, DeclarationError | HandrailError]]:
    """Runs workers until a signal, or until one of them fails.

    Returns how many handlers were still running at the end, and the errors by agent.
    """
    company, sources = Company(), not os.environ.get(WITHOUT_SOURCES)
    workers = [Worker(agent, settings[agent.name], sources=sources, company=company) for agent in agents]
    running = [asyncio.ensure_future(worker.run()) for worker in workers]
    asked = 0

    def stop() -> None:
        nonlocal asked
        asked += 1
        for worker, task in zip(workers, running, strict=True):
            if asked == 1:
                worker.stop()
            else:
                task.cancel()

    loop = asyncio.get_running_loop()
    for each in _STOP_SIGNALS:
        loop.add_signal_handler(each, stop)
    lifeline = os.environ.get(LIFELINE)
    if lifeline is not None:
        loop.add_reader(int(lifeline), _once(loop, int(lifeline), stop))
    watchdog = Watchdog([handler for agent in agents for handler in agent.handlers])
    watchdog.start()
    calming = asyncio.ensure_future(_calm_collector(workers))
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_EXCEPTION)
        for worker in workers:
            worker.stop()
        await asyncio.wait(running)
    finally:
        calming.cancel()
        watchdog.stop()
    return sum(worker.abandoned for worker in workers), _errors(agents, running)


def _errors(
    agents: Sequence[Declaration], ended: Sequence[asyncio.Future[None]]
) -> dict[str, DeclarationError | HandrailError]:
    """Returns the errors that ended workers, by agent; raises any other, such as that of a source."""
    errors: dict[str, DeclarationError | HandrailError] = {}
    for agent, task in zip(agents, ended, strict=True):
        try:
            task.result()
        except (DeclarationError, HandrailError) as error:
            errors[agent.name] = error
        except asyncio.CancelledError:
            _logger.warning("agent %s was asked twice to stop: ended while handlers were running", agent.name)
    return errors


async def _calm_collector(workers: Sequence[Worker]) -> None:
    for worker in workers:
        await worker.ready.wait()
    collector.calm()


def _once(loop: asyncio.AbstractEventLoop, descriptor: int, stop: Callable[[], None]) -> Callable[[], None]:
    def closed() -> None:
        loop.remove_reader(descriptor)
        stop()

    return closed


def main(arguments: list[str]) -> int:
    """Runs one worker of each agent that the arguments name."""
    if not arguments:
        print("usage: python -m handrail.agents.runner MODULE:AGENT …", file=sys.stderr)
        return BAD_DECLARATION
    try:
        agents = find_agents(arguments)
    except DeclarationError as error:
        print(clean_lines(str(error)), file=sys.stderr)
        status = BAD_DECLARATION
    else:
        # If a handler's C code crashes, at least its location is printed.
        faulthandler.enable()
        status = run_here(agents)
    return SAID_BADLY_DECLARED if status == BAD_DECLARATION and LIFELINE in os.environ else status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
