"""`DevStack`: nats-server, coordinator, visibility, console and agents as children of this process."""

from __future__ import annotations

import fcntl
import logging
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import IO

from handrail.cli.client import Client
from handrail.cli.dev.broker import Broker
from handrail.cli.dev.changes import Changes
from handrail.cli.dev.package import Package
from handrail.cli.dev.parts import Parts
from handrail.cli.dev.people import OPERATOR, VIEWER, People
from handrail.cli.dev.processes import Child, StartError, free_port, listens, require_free, stop, wait_until
from handrail.cli.dev.registry import Stored, activate_templates
from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.probe import serves
from handrail.cli.transport import Transport

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_GRACE = 12.0
_RESTART_AFTER = 1.0
_LOOK_AGAIN = 1.0
_CALL_TIMEOUT = timedelta(seconds=10)
_HEALTH_TIMEOUT = timedelta(seconds=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class DevOptions:
    """What to start, and where.

    `folder` holds all data and is created if missing; data of an earlier run is reused. Port 0 takes a free one.
    `environment` is added to that of the agents. `settings` (variables such as HANDRAIL_LEASE_TTL) are the
    coordinator's. With `sync_always` the broker acknowledges only what is on disk. Without `visibility`, lists are
    scans; by default it is there if its packages are. Without `console_port` there is no console. The agents in
    `without` are not started: somebody else runs them.
    """

    folder: Path
    package: Package
    nats_port: int = 0
    port: int = 0
    console_port: int | None = None
    without: frozenset[str] = frozenset()
    environment: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)
    sync_always: bool = True
    visibility: bool = field(default_factory=lambda: find_spec("sqlalchemy") is not None)


class DevStack:
    """The installation. Start it and its agents from the main thread; call `poll` regularly to keep it complete.

    Errors are raised as StartError. `stop` ends every child and may be called at any time; so does leaving the `with`
    block.
    """

    def __init__(self, options: DevOptions) -> None:
        self.options = options
        self.package = options.package
        self._changes = Changes(self)
        self.folder = options.folder.absolute()
        self._people: People | None = None
        self.address = ""
        self.index = ""
        self.agents: dict[str, Child] = {}
        self._lock: IO[str] | None = None
        self._broker: Broker | None = None
        self._coordinator: Child | None = None
        self._visibility: Child | None = None
        self._console: Child | None = None
        self.console_address = ""
        self._stored = Stored()
        self._ended_at: dict[str, float] = {}
        self._looked_at = 0.0

    def __enter__(self) -> DevStack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts broker and coordinator, and activates the templates; agents are started one by one."""
        try:
            self._prepare_folder()
            self._start_broker()
            self._start_parts()
            self._start_console()
            with self.client(OPERATOR) as client:
                activate_templates(client, self.package)
            self.refresh_permissions()
        except BaseException:
            self.stop()
            raise

    @property
    def nats_url(self) -> str:
        """The address of the broker."""
        return self.broker.url

    @property
    def broker(self) -> Broker:
        """The running broker."""
        if self._broker is None:
            raise RuntimeError("the stack is not started: call start first")
        return self._broker

    @property
    def coordinator(self) -> Child:
        """The coordinator's process."""
        if self._coordinator is None:
            raise RuntimeError("the stack is not started: call start first")
        return self._coordinator

    @property
    def children(self) -> Sequence[Child]:
        """All processes, in the order in which they were started."""
        parts = (self.broker.child, self._visibility, self.coordinator, self._console, *self.agents.values())
        return [child for child in parts if child is not None]

    @property
    def people(self) -> People:
        """The people who have a token."""
        if self._people is None:
            raise RuntimeError("the stack is not started: call start first")
        return self._people

    def client(self, person: str) -> Client:
        """Returns a client that calls as this person; close it after use."""
        return Client(Transport(self.address), token=self.people.tokens[person], timeout=_CALL_TIMEOUT)

    def start_agents(self) -> None:
        """Starts every agent of the package, but for those that somebody else runs."""
        for name in self.package.agents:
            if name not in self.options.without:
                self.start_agent(name)

    def start_agent(self, name: str) -> Child:
        """Starts or restarts an agent of the package."""
        child = self.agents.get(name) or self._parts().agent(name, self.package.agents[name], self.options.environment)
        self.agents[name] = child
        self._ended_at.pop(child.name, None)
        if not child.is_running:
            child.start()
        return child

    def restart_agents(self) -> None:
        """Ends all agents, and starts those that the package has now, also those that could not start before."""
        stop(list(self.agents.values()), grace=_GRACE)
        gone = self.agents.keys() - self.package.agents.keys()
        self.agents = {name: child for name, child in self.agents.items() if name not in gone}
        self.start_agents()

    def kill_agent(self, name: str) -> None:
        """Sends SIGKILL to an agent; `poll` or `start_agent` restarts it."""
        self.agents[name].kill()

    def poll(self) -> None:
        """Restarts what died or has changed, and gives the broker the permissions that newly stored templates need."""
        self._changes.take()
        for child in self.children:
            self._restart(child)
        # Without a broker the coordinator keeps its caller waiting, and a waiting caller restarts nothing.
        both_run = self.broker.child.is_running and self.coordinator.is_running
        if both_run and time.monotonic() - self._looked_at >= _LOOK_AGAIN:
            self._looked_at = time.monotonic()
            try:
                self.refresh_permissions()
            except CommandError as error:  # the coordinator is being restarted
                log.debug("the stored templates can't be read: %s", error.text)
            except StartError as error:
                log.error("%s", error)

    def refresh_permissions(self) -> bool:
        """Applies the permissions of every stored template to the broker; returns whether they changed."""
        with self.client(VIEWER) as client:
            stored = self._stored.read(client)
        changed = self.broker.allow([*self.package.templates, *stored])
        if changed:
            log.info("the broker's permissions were regenerated and reloaded")
        return changed

    def stop(self) -> None:
        """Ends all children in order: agents, then console, coordinator and visibility, then the broker."""
        stop(list(self.agents.values()), grace=_GRACE)
        parts = (self._console, self._coordinator, self._visibility)
        stop([child for child in parts if child is not None], grace=_GRACE)
        if self._broker is not None:
            stop([self._broker.child], grace=_GRACE)
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _prepare_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self.folder / "lock").open("w")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(f"{self.folder} is in use by another `handrail dev`") from None
        except OSError as error:
            raise StartError(f"{self.folder} can't be used: {error.strerror}") from None
        self._people = People(self.folder, self.package.roles)

    def _start_broker(self) -> None:
        port = self.options.nats_port
        if port:
            require_free(port, "--nats-port")
        self._broker = Broker(self.folder, port=port or free_port(), sync_always=self.options.sync_always)
        self._broker.allow(self.package.templates)
        self._broker.start()
        self._broker.set_up()

    def _start_parts(self) -> None:
        """Starts coordinator and visibility side by side, and waits until both serve."""
        self.index = f"127.0.0.1:{free_port()}" if self.options.visibility else ""
        if self.index:
            self._visibility = self._parts().visibility(self.index)
            self._visibility.start()
        self._start_coordinator()
        if self._visibility is not None:
            wait_until(lambda: listens(self.index), self._visibility, seconds=_START_SECONDS)

    def _start_coordinator(self) -> None:
        port = self.options.port
        if port:
            require_free(port, "--port")
        self.address = f"127.0.0.1:{port or free_port()}"
        self._coordinator = self._parts().coordinator(
            self.address, keys=self.people.keys.public, index=self.index, settings=self.options.settings
        )
        self._coordinator.start()
        with Transport(self.address).channel() as channel:
            wait_until(lambda: serves(channel, _HEALTH_TIMEOUT), self._coordinator, seconds=_START_SECONDS)

    def _start_console(self) -> None:
        port = self.options.console_port
        if port is None:
            return
        if port:
            require_free(port, "--console-port")
        address = self.console_address = f"127.0.0.1:{port or free_port()}"
        self._console = self._parts().console(
            address, coordinator=self.address, identities=self.people.token_file(VIEWER).parent
        )
        self._console.start()
        wait_until(lambda: listens(address), self._console, seconds=_START_SECONDS)

    def _parts(self) -> Parts:
        return Parts(self.folder, self.broker)

    def _restart(self, child: Child) -> None:
        if child.is_running or not child.pid:
            return
        now = time.monotonic()
        if child.name not in self._ended_at:
            self._ended_at[child.name] = now
            if child.exit_code == Exit.USAGE:
                log.error("%s can't start, until a file of it changes: %s (log: %s)", *_why_not(child))
            else:
                log.warning("%s %s; restarting it", child.name, _how_it_ended(child))
        # A process with a usage error would fail again.
        elif child.exit_code != Exit.USAGE and now - self._ended_at[child.name] >= _RESTART_AFTER:
            del self._ended_at[child.name]
            child.start()


def _why_not(child: Child) -> tuple[str, str, Path]:
    return child.name, child.last_words(lines=1).removeprefix("handrail: "), child.log


def _how_it_ended(child: Child) -> str:
    code = child.exit_code or 0
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"{how} (log: {child.log})"
