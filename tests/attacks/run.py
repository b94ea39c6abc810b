"""Attacks a running installation and prints how each attack was refused: `make attack`, or ARGS='29 30' for some.

A table of id, title and outcome, then one line in sum. Exit status 0 if all were refused, 1 if one succeeded or could
not be tried, 2 for wrong arguments. Attacks that are known to work are listed as open.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from handrail.mesh.printable import clean
from tests.attacks.attack import Attack, Succeeded, chosen
from tests.attacks.installation import Installation, running_installation
from tests.attacks.open import OPEN

LIMIT = 100
"""Seconds for one attack."""


@dataclass(frozen=True)
class Outcome:
    """What became of an attack."""

    refused: bool
    text: str
    seconds: float = 0


async def tried(attack: Attack, target: Installation) -> Outcome:
    """Try one attack."""
    began = time.monotonic()
    try:
        async with asyncio.timeout(LIMIT):
            text = await attack.run(target)
        return Outcome(True, text, time.monotonic() - began)
    except Succeeded as success:
        return Outcome(False, f"SUCCEEDED: {success}")
    except Exception as error:
        traceback.print_exc()
        return Outcome(False, f"COULD NOT BE TRIED: {type(error).__name__}: {error}"[:600])


def campaign(attacks: Sequence[Attack], folder: Path) -> bool:
    """Try attacks one after the other and print what became of each; whether all were refused."""
    began, all_refused = time.monotonic(), True
    with ExitStack() as stack:
        shared: Installation | None = None
        for attack in attacks:
            if attack.fresh:
                with running_installation(folder / f"attack-{attack.id}") as target:
                    outcome = asyncio.run(tried(attack, target))
            else:
                shared = shared or stack.enter_context(running_installation(folder / "shared"))
                outcome = asyncio.run(tried(attack, shared))
            all_refused = all_refused and outcome.refused
            show(
                attack.id,
                attack.title,
                f"{outcome.text} ({outcome.seconds:.1f} s)" if outcome.refused else outcome.text,
            )
    print(f"{len(attacks)} attacks in {time.monotonic() - began:.0f} s: ", end="")
    print("all refused" if all_refused else "NOT ALL REFUSED")
    return all_refused


def show(id_: str, title: str, text: str) -> None:
    """Print a row of the table, in two lines."""
    print(f"{id_:>4}  {clean(title)}\n      {clean(text)}", flush=True)


def main(arguments: Sequence[str]) -> int:
    """0: all refused; 1: one succeeded or could not be tried; 2: an id does not exist, or the folder can't be used."""
    parser = argparse.ArgumentParser(description="Attack a running installation: every attack has to be refused.")
    parser.add_argument("ids", nargs="*", metavar="ID", help="the attacks to try; all without any")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep data and logs there; default: nothing is kept")
    given = parser.parse_args(arguments)
    try:
        attacks = chosen(id_ for id_ in given.ids if id_ not in OPEN)
    except ValueError as error:
        print(f"attack: {error}", file=sys.stderr)
        return 2
    if given.keep is not None and given.keep.exists() and any(given.keep.iterdir()):
        print(f"attack: {given.keep} is not empty: name another folder, or remove it", file=sys.stderr)
        return 2
    known = {id_: each for id_, each in OPEN.items() if not given.ids or id_ in given.ids}
    folder = given.keep or Path(tempfile.mkdtemp(prefix="attacks-"))
    try:
        all_refused = campaign(attacks, folder) if attacks or not given.ids else True
    finally:
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)
    for id_, each in known.items():
        show(id_, each.title, f"open: {each.reason}")
    print(f"{len(known)} open")
    return 0 if all_refused else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
