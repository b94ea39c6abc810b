"""Move the validator's rules out of the package `buf` into our namespace: python gen/own_rules.py FOLDER.

FOLDER holds what buf generated. A distribution must not bring a package that has another owner's name.
"""

import shutil
import sys
from pathlib import Path

from handrail.cli.generated_code import use_own_rules

ADDED = Path(__file__).parent / "added"
"""Files that nothing generates, beside the generated ones."""


def move_rules(folder: Path) -> None:
    """Move buf/validate to handrail/validate, and let all modules in the folder import it from there."""
    shutil.copytree(ADDED, folder, dirs_exist_ok=True)
    for name in ("validate_pb2.py", "validate_pb2.pyi"):
        text = (folder / "buf/validate" / name).read_text("utf-8")
        (folder / "handrail/validate" / name).write_text(
            text.replace("'buf.validate.validate_pb2'", "'handrail.validate.validate_pb2'"), "utf-8"
        )
    shutil.rmtree(folder / "buf")
    use_own_rules(folder)


if __name__ == "__main__":
    move_rules(Path(sys.argv[1]))
