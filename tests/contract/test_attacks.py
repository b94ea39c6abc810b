"""The list of attacks agrees with itself and with the mutants."""

from tests.attacks.attack import attacks
from tests.attacks.open import OPEN
from tests.mutants.run import mutants

ATTACKS = attacks()


def test_what_is_open_is_no_attack_that_is_refused() -> None:
    assert OPEN.keys() & {each.id for each in ATTACKS} == set()


def test_each_mutant_that_an_attack_names_exists() -> None:
    there = {each.name for each in mutants()}
    assert {(each.id, name) for each in ATTACKS for name in each.mutants if name not in there} == set()
