"""The common part of every demo's command: folder, story of the installation, exit status."""

import logging
import shutil
import signal
import sys
import tempfile
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from pathlib import Path

from demos.stage.story import Story, StoryHandler
from handrail.cli.dev.processes import StartError
from handrail.cli.exit_codes import CommandError
from handrail.mesh.printable import clean, clean_lines

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses: every flow ended as expected; one did not, or the demo could not run; Ctrl-C."""

BROKERS_DATA = "nats"


def add_options(parser: ArgumentParser) -> None:
    """Adds the options that every demo has to a command."""
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep all files there; default: keep nothing")
    parser.add_argument("--stay", action="store_true", help="stay up at the end, with a console to look at the flows")


def perform(run: Callable[[Path, Story], bool], *, name: str, keep: Path | None, leaves: Sequence[str]) -> int:
    """Runs a demo in a folder; returns an exit status.

    `run` returns whether everything ended as expected, and may raise OSError, StartError or CommandError. The folder is
    `keep`, or a temporary one that is kept only after a failure. `leaves` are the names of the files of a run: those of
    an earlier run are evidence and are never overwritten.
    """
    # SIGTERM ends the demo like Ctrl-C: with all its processes, and without its temporary folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = keep or Path(tempfile.mkdtemp(prefix=f"{name}-"))
    status = _status(run, folder, leaves)
    if keep is None:
        if status == FAILED and (folder / "logs").exists():
            print(f"demo: its files are kept in {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return status


def _status(run: Callable[[Path, Story], bool], folder: Path, leaves: Sequence[str]) -> int:
    story = Story()
    told = StoryHandler(story)
    logger = logging.getLogger("handrail")
    logger.addHandler(told)
    try:
        _require_unused(folder, leaves)
        folder.mkdir(parents=True, exist_ok=True)
        return OK if run(folder, story) else FAILED
    except OSError as error:
        text = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"demo: {clean(text)}", file=sys.stderr)
        return FAILED
    except (StartError, CommandError) as error:
        print(f"demo: {clean_lines(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    finally:
        logger.removeHandler(told)


def _require_unused(folder: Path, leaves: Sequence[str]) -> None:
    former = [name for name in (*leaves, BROKERS_DATA) if (folder / name).exists()]
    if former:
        raise StartError(f"{folder} has files of another run ({', '.join(former)}): name another folder, or remove it")
