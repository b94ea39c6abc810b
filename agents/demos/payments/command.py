"""The command of the payments demo: runs it from the first chargeback to the audit."""

import argparse
import logging
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from demos.payments.chargebacks import read_chargebacks
from demos.payments.files import Files
from demos.payments.runner import Run
from demos.payments.story import StoryHandler
from handrail.cli.dev.processes import StartError
from handrail.cli.exits import CommandError

SHIPPED = Path(__file__).with_name("chargebacks.jsonl")

OK, FAILED, INTERRUPTED = 0, 1, 130
"""Exit statuses: every flow ended as it must; one did not, or nothing could be run; Ctrl-C."""


def main() -> int:
    """Run it; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.payments", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--chargebacks", type=Path, default=SHIPPED, metavar="FILE", help="JSON lines; default: shipped"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws votes and faults; default: 1")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything there; default: nothing is kept")
    arguments = parser.parse_args()
    # Asked to end, it ends as with Ctrl-C: with all its processes, and without its temporary folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder: Path = arguments.keep or Path(tempfile.mkdtemp(prefix="payments-"))
    status = _status(folder, arguments)
    if arguments.keep is None:
        if status == FAILED and (folder / "logs").exists():
            print(f"demo: what it left is kept, to look at: {folder}", file=sys.stderr)
        else:
            shutil.rmtree(folder)
    return status


def _status(folder: Path, arguments: argparse.Namespace) -> int:
    try:
        return OK if _run_in(folder, arguments) else FAILED
    except OSError as error:
        print(f"demo: {error.filename}: {error.strerror}" if error.filename else f"demo: {error}", file=sys.stderr)
        return FAILED
    except (StartError, CommandError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _run_in(folder: Path, arguments: argparse.Namespace) -> bool:
    former = Files(folder).of_former_run()
    if former:
        raise StartError(f"{folder} holds another run ({', '.join(former)}): name another folder, or remove it")
    found = list(read_chargebacks(arguments.chargebacks))
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(arguments.chargebacks, found, seed=arguments.seed, folder=folder)
    logging.getLogger("handrail").addHandler(StoryHandler(run.story))
    return run.run()
