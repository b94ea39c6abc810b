"""The command of the research demo: examines the folders of a source tree, and audits the results."""

import argparse
from pathlib import Path

from demos.research.runner import OUTPUT, Run
from demos.stage.command import add_keep, perform
from demos.stage.story import Story
from handrail.cli.dev.processes import StartError


def main() -> int:
    """Runs the demo; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m demos.research", description=__doc__, allow_abbrev=False)
    parser.add_argument(
        "--tree", type=Path, default=Path.cwd(), metavar="DIR", help="folder of source folders; default: this one"
    )
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="draws the answers; default: 1")
    add_keep(parser)
    arguments = parser.parse_args()

    def run(folder: Path, story: Story) -> bool:
        if not arguments.tree.is_dir():
            raise StartError(f"{arguments.tree} is not a folder")
        return Run(arguments.tree, seed=arguments.seed, folder=folder, story=story).run()

    return perform(run, name="research", keep=arguments.keep, leaves=(OUTPUT,))
