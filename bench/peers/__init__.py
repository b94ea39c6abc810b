"""Other systems on which people build sagas, under the same load: `make bench ARGS='--peers FOLDER'`.

FOLDER has their environment, which is not part of this project; with the versions that were measured:

    python3.11 -m venv FOLDER/venv
    FOLDER/venv/bin/pip install restate-sdk==1.3.0 granian==2.8.7 'faststream[nats]==0.7.8' dbos==3.4.0 \\
        natsaga==0.2.0 asyncpg psycopg-binary uvloop==0.23.0
    npm install --prefix FOLDER @restatedev/restate-server@1.7.12

DBOS and natsaga also need the programs of PostgreSQL (`apt-get install postgresql-15`). A peer that is not installed is
skipped.

| peer | a step is durable when |
| --- | --- |
| Restate: a keyed workflow, `ctx.run` for each step, granian with two workers | its log is synced to disk, in groups |
| DBOS on PostgreSQL: a workflow in its own process | the commit is synced to disk |
| natsaga on PostgreSQL and a nats-server; no approvals | the commit is synced to disk |
| FastStream: subscribers that publish the next event; no state | the broker has it; synced every two minutes |

A flow is the same as in W1, W2 and W3: three steps of about 200 bytes; or the third fails for good, and two undos run
in reverse; or one step and a person's answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

PADDING = "x" * 180
"""With its names about 200 bytes, what a step returns."""

NAMES = ("restate", "dbos", "natsaga", "faststream")

CANNOT = {"natsaga": ("approved",)}
"""Maps a peer to works that it has no means for."""

_POSTGRES = Path("/usr/lib/postgresql")


def interpreter(folder: Path) -> Path:
    """The peers' interpreter."""
    return folder / "venv" / "bin" / "python"


def restate_server(folder: Path) -> Path:
    """The program of Restate's server."""
    return folder / "node_modules" / ".bin" / "restate-server"


def postgres(program: str) -> Path:
    """A program of the newest PostgreSQL that is installed; a path that does not exist without any."""
    versions = sorted(_POSTGRES.glob("*"), key=lambda path: int(path.name) if path.name.isdigit() else 0)
    return (versions[-1] if versions else _POSTGRES) / "bin" / program


def missing(name: str, folder: Path) -> str:
    """What this peer needs and is not there; empty if it can run."""
    packages = interpreter(folder).parents[1] / "lib"
    needed: Mapping[str, tuple[Path, ...]] = {
        "restate": (restate_server(folder), *_modules(packages, "restate", "granian")),
        "dbos": (postgres("initdb"), *_modules(packages, "dbos", "psycopg")),
        "natsaga": (postgres("initdb"), *_modules(packages, "natsaga", "nats_outbox", "asyncpg")),
        "faststream": _modules(packages, "faststream", "nats"),
    }
    return ", ".join(str(path) for path in needed[name] if not path.exists())


def _modules(packages: Path, *names: str) -> tuple[Path, ...]:
    found = [next(packages.glob(f"python*/site-packages/{name}"), None) for name in names]
    return tuple(path or packages / name for path, name in zip(found, names, strict=True))
