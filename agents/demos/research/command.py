"""The command of the research demo: examines the folders of a source tree, and audits the results."""

import argparse
from pathlib import Path

from demos.research.runner import OUTPUT, Run
from demos.stage.command import add_options, perform
from demos.stage.story import Story
from handrail.cli.dev.processes import StartError


def main() -> int:
    """Runs the demo; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.research", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--tree", type=Path, default=Path.cwd(), metavar="DIR", help="folder of source folders; default: this one"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws the answers; default: 1")
    add_options(parser)
    arguments = parser.parse_args()

    def perform_in(folder: Path, story: Story) -> bool:
        if not arguments.tree.is_dir():
            raise StartError(f"{arguments.tree} is not a folder")
        run = Run(arguments.tree, seed=arguments.seed, folder=folder, story=story, stays=arguments.stay)
        return run.run()

    return perform(perform_in, name="research", keep=arguments.keep, leaves=(OUTPUT,))
