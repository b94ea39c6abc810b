"""The command of the compliance demo: checks every distribution of an environment, and audits the results."""

import argparse
import sysconfig
from pathlib import Path

from demos.compliance import settings
from demos.compliance.checks.licences import Policy
from demos.compliance.files import NAMES
from demos.compliance.runner import Run
from demos.stage.command import add_options, perform
from demos.stage.story import Story
from handrail.cli.dev.processes import StartError


def main() -> int:
    """Runs the demo; returns an exit status."""
    here = Path(sysconfig.get_path("purelib"))
    parser = argparse.ArgumentParser(prog="python -m demos.compliance", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--site", type=Path, default=here, metavar="DIR", help="folder of installed packages; default: this Python's"
    )
    parser.add_argument(
        "--policy", type=Path, default=settings.SHIPPED_POLICY, metavar="FILE", help="on licences; default: shipped"
    )
    parser.add_argument(
        "--seed", type=int, default=1, metavar="N", help="draws copies, tampering and answers; default: 1"
    )
    add_options(parser)
    arguments = parser.parse_args()

    def perform_in(folder: Path, story: Story) -> bool:
        try:
            Policy.load(arguments.policy)
        except ValueError as error:
            raise StartError(str(error)) from None
        run = Run(
            arguments.site, arguments.policy, seed=arguments.seed, folder=folder, story=story, stays=arguments.stay
        )
        return run.run()

    return perform(perform_in, name="compliance", keep=arguments.keep, leaves=NAMES)
