"""The mutants that `make mutants` tries still fit the code, and leave no promise out."""

import re
from pathlib import Path

import pytest

from tests.contract.source import ROOT
from tests.mutants.run import Mutant, mutants

MUTANTS = mutants()


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_still_applies(mutant: Mutant) -> None:
    assert mutant.complaint(ROOT) == "", "the code has moved on: break it there, too"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_tests_that_have_to_notice_a_mutant_exist(mutant: Mutant) -> None:
    assert mutant.tests
    for test in mutant.tests:
        path, _, name = test.partition("::")
        code = "\n".join(file.read_text() for file in _files(path))
        assert name == "" or re.search(rf"def {re.escape(name.partition('[')[0])}\b", code), test


def test_a_mutant_breaks_the_promise_that_its_name_begins_with() -> None:
    assert [mutant.name.partition("_")[0].upper() for mutant in MUTANTS] == [mutant.promise for mutant in MUTANTS]


def test_every_promise_is_broken() -> None:
    assert {mutant.promise for mutant in MUTANTS} == {f"P{number}" for number in range(1, 9)}


def _files(path: str) -> list[Path]:
    found = ROOT / path
    return sorted(found.rglob("*.py")) if found.is_dir() else [found]
