"""Attacks on a running installation, each a coroutine that is registered under an id.

    @attack("4", "an agent takes another agent's deliveries", mutant="p6_an_agent_settles_for_another")
    async def steal_deliveries(target: Installation) -> str: ...

It returns how it was refused, in one line. It raises `Succeeded` if the attack works. Any other exception means that
the attack could not be tried, which counts as a failure too.
"""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from tests.attacks.installation import Installation

Run = Callable[[Installation], Awaitable[str]]

HARNESS = frozenset({"attack", "installation", "open", "run"})
"""Modules of this folder that hold no attacks."""


class Succeeded(Exception):
    """The attack did what it must not do; the text is what was seen."""


@dataclass(frozen=True)
class Attack:
    """An attack. One that is `fresh` needs an installation of its own: it breaks it, or leaves much behind.

    `mutants` name the patches of tests/mutants that remove a guard against it.
    """

    id: str
    title: str
    run: Run
    fresh: bool
    mutants: tuple[str, ...]
    module: str

    @property
    def surface(self) -> str:
        """What it attacks: the name of its module."""
        return self.module.rpartition(".")[2]

    @property
    def order(self) -> tuple[int, str]:
        """Sorts ids by their number: 9, 10, 10b."""
        digits = "".join(character for character in self.id if character.isdigit())
        return int(digits or 0), self.id


_REGISTERED: dict[str, Attack] = {}


def attack(id_: str, title: str, *, fresh: bool = False, mutant: str | Sequence[str] = ()) -> Callable[[Run], Run]:
    """Registers a coroutine as an attack; raises ValueError if the id is taken."""

    def register(run: Run) -> Run:
        mutants = (mutant,) if isinstance(mutant, str) else tuple(mutant)
        made = Attack(id_, title, run, fresh, mutants, run.__module__)
        former = _REGISTERED.setdefault(id_, made)
        if former.module != made.module or former.title != title:
            raise ValueError(f'attack {id_} is "{former.title}" of {former.module} already: give "{title}" another id')
        return run

    return register


def refused(what: str, *, unless: object) -> str:
    """How the attack was refused; raises Succeeded with what was seen if that is anything true."""
    if unless:
        succeeded(repr(unless))
    return what


def succeeded(seen: str) -> NoReturn:
    """Ends the attack: it did what it must not do."""
    raise Succeeded(seen[:600])


def attacks() -> list[Attack]:
    """All attacks of all modules in this folder, by id."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem not in HARNESS and not path.stem.startswith("test_"):
            importlib.import_module(f"tests.attacks.{path.stem}")
    return sorted(_REGISTERED.values(), key=lambda each: each.order)


def chosen(ids: Iterable[str]) -> list[Attack]:
    """The attacks with these ids, all of them without any; raises ValueError for an id that does not exist."""
    every, wanted = attacks(), list(ids)
    unknown = set(wanted) - {each.id for each in every}
    if unknown:
        raise ValueError(f"there is no attack {', '.join(sorted(unknown))}")
    return [each for each in every if not wanted or each.id in wanted]
