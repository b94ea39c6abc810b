"""The command of the payments demo: runs it from the first chargeback to the audit."""

import argparse
from pathlib import Path

from demos.payments.chargebacks import read_chargebacks
from demos.payments.files import NAMES
from demos.payments.runner import Run
from demos.stage.command import add_options, perform
from demos.stage.story import Story

SHIPPED = Path(__file__).with_name("chargebacks.jsonl")


def main() -> int:
    """Runs the demo; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.payments", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--chargebacks", type=Path, default=SHIPPED, metavar="FILE", help="JSON lines; default: shipped"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws votes and faults; default: 1")
    add_options(parser)
    arguments = parser.parse_args()

    def perform_in(folder: Path, story: Story) -> bool:
        found = read_chargebacks(arguments.chargebacks)
        run = Run(arguments.chargebacks, found, seed=arguments.seed, folder=folder, story=story, stays=arguments.stay)
        return run.run()

    return perform(perform_in, name="payments", keep=arguments.keep, leaves=NAMES)
