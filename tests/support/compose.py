"""Runs docker-compose.yml without Docker: its commands, with ports and paths of this machine."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from handrail.cli.dev.processes import Child
from tests.support.dev import ROOT
from tests.support.nats_server import FreePorts

BIN = Path(sys.executable).parent
_ADDRESS = re.compile(r"\b(?P<host>[a-z][a-z0-9-]*|127\.0\.0\.1|0\.0\.0\.0):(?P<port>\d{4})\b")
_COPY = re.compile(r"^COPY (?P<source>(?!--)\S+) (?P<target>/etc/\S+)$", re.MULTILINE)
SERVERS = ("nats1", "nats2", "nats3")


def compose_file() -> dict[str, Any]:
    """The committed file."""
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    return loaded


@dataclass(frozen=True)
class Mount:
    """A volume, and its mount point in a service."""

    volume: str
    target: str
    read_only: bool


def mounts(service: Mapping[str, Any]) -> list[Mount]:
    """The named volumes of a service, deepest target first."""
    found = []
    for text in service.get("volumes", []):
        volume, target, *mode = text.split(":")
        found.append(Mount(volume, target, mode == ["ro"]))
    return sorted(found, key=lambda mount: -len(mount.target))


class Compose:
    """The services, with paths and addresses of this machine in place of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.services: dict[str, dict[str, Any]] = compose_file()["services"]
        self._etc = folder / "etc"
        for copy in _COPY.finditer((ROOT / "Dockerfile").read_text("utf-8")):
            target = self._etc / Path(copy["target"]).relative_to("/etc")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / copy["source"], target)
        ports = FreePorts(13)
        numbers = iter(ports.numbers)
        # Each (service, port) of the network has its own port here.
        self.ports = {(server, port): next(numbers) for server in SERVERS for port in ("4222", "6222", "8222")}
        self.ports |= {(name, "7070"): next(numbers) for name in ("coordinator1", "coordinator2")}
        self.ports["visibility", "7072"] = next(numbers)
        self.ports["console", "7080"] = next(numbers)
        ports.release()

    def command(self, name: str) -> list[str]:
        """A service's command for this machine."""
        words = [self._here(name, word) for word in self.services[name]["command"]]
        if words[0] == "sh":
            # The script has paths of the container: a copy gets ours.
            script = Path(words[1])
            local = script.with_name(f"local-{script.name}")
            local.write_text(self._here(name, script.read_text("utf-8")))
            words[1] = str(local)
        if words[0] == "nats-server":
            words[2] = str(self._server_configuration(name))
            words += self._server_overrides(name)
        return [shutil.which(words[0], path=f"{BIN}:{os.environ['PATH']}") or words[0], *words[1:]]

    def health(self, name: str) -> list[str] | None:
        """A service's health check for this machine, or None."""
        check = self.services[name].get("healthcheck")
        if check is None:
            return None
        kind, *words = check["test"]
        assert kind == "CMD"
        program = shutil.which(words[0], path=f"{BIN}:{os.environ['PATH']}") or words[0]
        return [program, *(self._here(name, word) for word in words[1:])]

    def environment(self, name: str, **more: str) -> dict[str, str]:
        """The environment of a service on this machine."""
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("HANDRAIL_", "PAYMENTS_"))}
        given = self.services[name].get("environment", {})
        mine = {key: self._here(name, str(value)) for key, value in given.items()}
        return {**plain, "PATH": f"{BIN}:{os.environ['PATH']}", **mine, **more}

    def volume(self, name: str) -> Path:
        """The folder that stands for a volume."""
        path = self.folder / "volumes" / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def start(self, name: str, **environment: str) -> Child:
        """Starts a service; its output goes to `<name>.log`."""
        work = self.folder / "work" / name
        work.mkdir(parents=True, exist_ok=True)
        child = Child(
            name,
            self.command(name),
            log=self.folder / f"{name}.log",
            environment=self.environment(name, **environment),
            folder=work,
        )
        child.start()
        return child

    def run(self, name: str, command: Sequence[str] | None = None) -> subprocess.CompletedProcess[str]:
        """Runs a service, or another command in its place, until it ends."""
        words = self.command(name) if command is None else [self._here(name, word) for word in command]
        if words[0] == "handrail":
            words[0] = str(BIN / "handrail")
        return subprocess.run(
            words, env=self.environment(name), cwd=self.folder, capture_output=True, text=True, timeout=90, check=False
        )

    def is_healthy(self, name: str) -> bool:
        """Whether its health check succeeds."""
        check = self.health(name)
        assert check is not None
        done = subprocess.run(check, env=self.environment(name), capture_output=True, timeout=60, check=False)
        return done.returncode == 0

    def _here(self, name: str, text: str) -> str:
        """Replaces the container's paths and addresses in a text by ours."""
        for mount in mounts(self.services[name]):
            local = self._mounted(name, mount)
            text = re.sub(rf"(?<![\w/]){re.escape(mount.target)}(?![\w-])", str(local), text)
        text = re.sub(r"(?<![\w/])/etc/handrail(?![\w-])", str(self._etc / "handrail"), text)
        return _ADDRESS.sub(lambda match: self._address(name, match), text)

    def _mounted(self, name: str, mount: Mount) -> Path:
        """The folder of a volume. If the mount point is within another volume or /etc, it is linked there, too."""
        local = self.volume(mount.volume)
        outer = [each for each in mounts(self.services[name]) if mount.target.startswith(f"{each.target}/")]
        places = [self.volume(each.volume) / Path(mount.target).relative_to(each.target) for each in outer]
        if mount.target.startswith("/etc/"):
            places.append(self._etc / Path(mount.target).relative_to("/etc"))
        for place in places:
            place.parent.mkdir(parents=True, exist_ok=True)
            if not place.is_symlink():
                place.symlink_to(local, target_is_directory=True)
        return local

    def _address(self, name: str, match: re.Match[str]) -> str:
        host = name if match["host"] in ("127.0.0.1", "0.0.0.0") else match["host"]
        port = self.ports.get((host, match["port"]))
        return match[0] if port is None else f"127.0.0.1:{port}"

    def _server_configuration(self, name: str) -> Path:
        """A server's copy of nats.conf: the paths of its volumes are its own here."""
        shared = self.volume("brokers") / "nats.conf"
        local = shared.with_name(f"local-{name}.conf")
        local.write_text(self._here(name, shared.read_text("utf-8")))
        return local

    def _server_overrides(self, name: str) -> list[str]:
        """The addresses of nats.conf are the same on each server; here they differ by port."""
        routes = (self.volume("brokers") / "routes.conf").read_text("utf-8")
        listed = re.findall(r'"(nats://[^"]+)"', routes)
        credentials = listed[0].removeprefix("nats://").partition("@")[0]
        return [
            *("--addr", "127.0.0.1", "--port", str(self.ports[name, "4222"])),
            *("--http_port", str(self.ports[name, "8222"])),
            *("--cluster", f"nats://{credentials}@127.0.0.1:{self.ports[name, '6222']}", "--routes", ",".join(listed)),
        ]
