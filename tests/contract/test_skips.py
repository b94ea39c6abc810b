"""A test that skips fails in CI, whatever program it misses, and says why; elsewhere it is skipped."""

import os
import re
import subprocess
import sys

import pytest

from tests.contract.source import ROOT

SKIPPED = {
    "test": "def test_it():\n    pytest.skip('no Node')\n",
    "mark": "@pytest.mark.skipif(True, reason='no Node')\ndef test_it():\n    assert True\n",
    "fixture": "@pytest.fixture\ndef node():\n    pytest.skip('no Node')\ndef test_it(node):\n    assert True\n",
    "module": "pytest.skip('no Node', allow_module_level=True)\n",
}
OTHERS = {
    "no_cases": "@pytest.mark.parametrize('case', [])\ndef test_it(case):\n    assert case\n",
    "expected": "@pytest.mark.xfail(reason='known')\ndef test_it():\n    assert not pytest\n",
}


@pytest.fixture(scope="module", params=["true", ""], ids=["in CI", "elsewhere"])
def ran(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[bool, str]:
    """Whether it is CI, and what pytest says of a file of each form, with the plugin that tests/conftest.py loads."""
    folder = tmp_path_factory.mktemp("skips")
    for name, source in (SKIPPED | OTHERS).items():
        (folder / f"test_{name}.py").write_text(f"import pytest\n{source}")
    options = ("-rA", "-p", "tests.support.skips", "-p", "no:cacheprovider", "--continue-on-collection-errors")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(folder)],
        cwd=folder,
        env={**os.environ, "CI": request.param, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    return bool(request.param), done.stdout


def test_a_skip_fails_in_ci_and_nowhere_else(ran: tuple[bool, str]) -> None:
    is_ci, said = ran
    expected = "1 failed, 1 xfailed, 4 errors" if is_ci else "5 skipped, 1 xfailed"
    assert expected in said


def test_what_failed_so_says_which_program_is_missing(ran: tuple[bool, str]) -> None:
    is_ci, said = ran
    named = set(re.findall(r"test_(\w+)\.py\S* was skipped, which CI does not allow: Skipped: no Node", said))
    assert named == (set(SKIPPED) if is_ci else set())


def test_the_tests_load_the_plugin() -> None:
    assert '"tests.support.skips"' in (ROOT / "tests" / "conftest.py").read_text()
