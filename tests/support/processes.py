"""Agents in their own worker processes, with only the test's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.nats_server import NatsServer

ROOT = Path(__file__).parents[2]

_VISIBILITY = ("-m", "handrail.cli.main", "visibility")


@contextmanager
def worker_process(
    server: NatsServer, *paths: str, log: Path, environment: Mapping[str, str], workers: int = 1
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a worker of each agent `module:agent`, or a supervisor of several such processes; kills it at the end."""
    several = f"from handrail.agents.runner import run_workers; exit(run_workers({paths!r}, workers={workers}))"
    command = ["-m", "handrail.agents.runner", *paths] if workers == 1 else ["-c", several]
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HANDRAIL_", "OTEL_"))}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *command],
            cwd=ROOT,
            env={**plain, "HANDRAIL_NATS": server.url, **environment},
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def visibility_process(
    server: NatsServer, database: str, log: Path, *, archive: Path | None = None, program: Sequence[str] = _VISIBILITY
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs `handrail visibility`, or another program in its place; kills it at the end."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("HANDRAIL_", "OTEL_"))}
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            cwd=ROOT,
            env={
                **plain,
                "HANDRAIL_NATS": server.url,
                "HANDRAIL_DATABASE": database,
                "HANDRAIL_ARCHIVE": str(archive or ""),
            },
            stdout=output,
            stderr=output,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
