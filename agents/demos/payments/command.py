"""The command of the payments demo: runs it from the first chargeback to the audit."""

import argparse
import logging
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


def main() -> int:
    """Run it; 0 where every flow ended as it must, 1 where one did not or nothing could be run, 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="python -m demos.payments", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--chargebacks", type=Path, default=SHIPPED, metavar="FILE", help="JSON lines; default: shipped"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws votes and faults; default: 1")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep everything there; default: nothing is kept")
    arguments = parser.parse_args()
    # Asked to end, it ends as with Ctrl-C: with all its processes, and without its temporary folder.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        if arguments.keep is not None:
            return _run_in(arguments.keep, arguments)
        with tempfile.TemporaryDirectory(prefix="payments-") as folder:
            return _run_in(Path(folder), arguments)
    except OSError as error:
        print(f"demo: {error.filename}: {error.strerror}" if error.filename else f"demo: {error}", file=sys.stderr)
        return 1
    except (StartError, CommandError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _run_in(folder: Path, arguments: argparse.Namespace) -> int:
    former = Files(folder).of_former_run()
    if former:
        raise StartError(f"{folder} holds another run ({', '.join(former)}): name another folder, or remove it")
    folder.mkdir(parents=True, exist_ok=True)
    run = Run(arguments.chargebacks, read_chargebacks(arguments.chargebacks), seed=arguments.seed, folder=folder)
    logging.getLogger("handrail").addHandler(StoryHandler(run.story))
    return 0 if run.run() else 1
