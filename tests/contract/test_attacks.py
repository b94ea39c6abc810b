"""The list of attacks agrees with itself and with the mutants."""

from tests.attacks.attack import attacks
from tests.attacks.open import OPEN
from tests.contract.source import ROOT
from tests.mutants.run import mutants

ATTACKS = attacks()


def test_what_is_open_is_no_attack_that_is_refused() -> None:
    assert OPEN.keys() & {each.id for each in ATTACKS} == set()


def test_the_security_page_names_what_is_open() -> None:
    section = (ROOT / "docs" / "security.md").read_text("utf-8").partition("## Open")[2]
    rows = [line.split(" | ")[0].removeprefix("| ") for line in section.splitlines() if line.startswith("| ")]
    assert rows[2:] == [each.title for each in OPEN.values()]


def test_the_security_page_names_every_module_of_attacks() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert {each.surface for each in ATTACKS if f"`{each.surface}`" not in page} == set()


def test_each_mutant_that_an_attack_names_exists() -> None:
    there = {each.name for each in mutants()}
    assert {(each.id, name) for each in ATTACKS for name in each.mutants if name not in there} == set()


def test_each_attack_names_a_mutant() -> None:
    assert [each.id for each in ATTACKS if not each.mutants] == [], "which patch removes the guard against it?"
