"""What the documentation names is there: links, commands, make targets, settings, exit codes, causes and choices."""

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from handrail.analysis.compat.change import REMEDIES
from handrail.cli.exit_codes import Exit
from handrail.cli.main import parser
from handrail.coordinator.api.access import documented
from handrail.mesh import settings
from handrail.mesh.setting import Setting
from handrail.v1.decision_pb2 import Choice, EscalationCause
from handrail.v1.error_reason_pb2 import ErrorReason
from tests.contract.source import ROOT

PAGES = sorted(
    [
        *(ROOT / name for name in ("README.md", "SECURITY.md", "CONTRIBUTING.md", "CHANGELOG.md")),
        *(ROOT / "examples/node/README.md", ROOT / "tests/attacks/README.md"),
        *ROOT.glob("docs/*.md"),
        *ROOT.glob("agents/demos/**/README.md"),
    ]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
COMMAND = re.compile(r"(?:^|[`$( ])handrail ((?:[a-z-]+ ?)+)")
TARGET = re.compile(r"^make ([a-z-]+)", re.MULTILINE)
SETTING = re.compile(r"\bHANDRAIL_[A-Z_]+\b")
REASON = re.compile(r"\(([A-Z]+(?:_[A-Z]+)+)\)")
OPERATIONS = ROOT / "docs" / "operations.md"

Commands = Mapping[str, argparse.ArgumentParser]


NODE = ROOT / "examples" / "node"


def pages() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def commands(of: argparse.ArgumentParser) -> Commands:
    """The subcommands of a parser, by name."""
    for action in of._actions:
        if isinstance(action, argparse._SubParsersAction):
            found: Commands = action.choices
            return found
    return {}


def code_of(page: Path) -> Iterator[str]:
    """What a page sets as code: between backticks, indented by four, or fenced."""
    text = page.read_text()
    fences = re.compile(r"^```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    yield from fences.findall(text)
    text = fences.sub("", text)
    yield from re.findall(r"^ {4}(.*)$", text, re.MULTILINE)
    yield from re.findall(r"`([^`]+)`", text)


def column(page: Path, heading: str) -> list[str]:
    """The first column of the table that begins with this heading."""
    table = re.search(rf"^\| {heading} \|.*\n\|[-| ]+\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert table is not None, f"{page.name} has no table of {heading}"
    return [row.split("|")[1].strip() for row in table[1].splitlines()]


def names(enum: object, prefix: str) -> list[str]:
    """The values of an enum, without its prefix and its zero."""
    keys: list[str] = enum.keys()  # type: ignore[attr-defined]
    return [key.removeprefix(prefix) for key in keys[1:]]


def test_the_pages_hold_what_is_looked_for() -> None:
    text = "\n".join(page.read_text() for page in PAGES)
    for pattern in (LINK, SETTING, REASON):
        assert pattern.search(text), pattern.pattern
    code = "\n".join(code for page in PAGES for code in code_of(page))
    for pattern in (COMMAND, TARGET):
        assert pattern.search(code), pattern.pattern


@pages()
def test_its_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(), re.MULTILINE)
            assert anchor in {heading.lower().replace(" ", "-").replace(",", "") for heading in headings}


@pages()
def test_its_commands_are_there(page: Path) -> None:
    for code in code_of(page):
        for line in code.splitlines():
            found = COMMAND.search(line)
            if found is None:
                continue
            known = commands(parser())
            for word in found[1].split()[:2]:
                assert word in known, f'{page.name}: "{line.strip()}" has no command {word}'
                known = commands(known[word])
                if not known:
                    break


@pages()
def test_its_make_targets_are_there(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    for code in code_of(page):
        for target in TARGET.findall(code):
            assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), f"{page.name}: make {target}"


@pages()
def test_its_settings_are_there(page: Path) -> None:
    known = {each.env for each in vars(settings).values() if isinstance(each, Setting)}
    for variable in SETTING.findall(page.read_text()):
        assert variable in known, f"{page.name} names {variable}"


@pages()
def test_the_reasons_it_names_are_there(page: Path) -> None:
    reasons = set(names(ErrorReason, "ERROR_REASON_"))
    for reason in REASON.findall(page.read_text()):
        causes = names(EscalationCause, "ESCALATION_CAUSE_")
        choices = names(Choice, "CHOICE_")
        assert reason in {*reasons, *causes, *choices}, f"{page.name} names {reason}"


def test_every_exit_code_is_on_the_page() -> None:
    assert column(OPERATIONS, "code") == [str(int(code)) for code in Exit]


def test_every_cause_and_choice_of_an_escalation_is_on_the_page() -> None:
    assert sorted(column(OPERATIONS, "cause")) == sorted(names(EscalationCause, "ESCALATION_CAUSE_"))
    assert sorted(column(OPERATIONS, "choice")) == sorted(names(Choice, "CHOICE_"))


def test_the_table_of_what_each_rpc_needs_is_the_one_in_the_code() -> None:
    assert "\n".join(documented()) in (ROOT / "docs" / "permissions.md").read_text()


def test_every_code_of_a_change_of_contracts_is_on_its_page_with_the_compatible_way() -> None:
    page = ROOT / "docs" / "contracts.md"
    assert column(page, "change code") == list(REMEDIES)
    text = page.read_text()
    assert [code for code, remedy in REMEDIES.items() if f"| {remedy} |" not in text and remedy] == []


def test_the_agent_on_the_page_about_the_wire_is_the_one_that_is_tested() -> None:
    (shown,) = re.findall(r"^```js\n(.*?)^```$", (ROOT / "docs/wire.md").read_text(), re.MULTILINE | re.DOTALL)
    assert shown in (NODE / "coordinated.js").read_text()


@pytest.mark.parametrize(
    "language, file", [("python", "examples/python/reader.py"), ("js", "examples/node/reading.js")]
)
def test_the_lines_to_copy_for_readers_are_those_that_are_tested(language: str, file: str) -> None:
    page = (ROOT / "docs/readers.md").read_text()
    shown = re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert len(shown) == 2
    assert [lines for lines in shown if lines not in (ROOT / file).read_text()] == []


def test_every_file_of_the_node_agents_is_on_their_page() -> None:
    page = (NODE / "README.md").read_text()
    assert [path.name for path in NODE.glob("*.js") if f"`{path.name}`" not in page] == []


def test_the_lock_of_the_node_agents_names_no_host_and_hashes_every_package() -> None:
    lock = (NODE / "package-lock.json").read_text()
    assert "://" not in lock
    packages = json.loads(lock)["packages"]
    assert all("integrity" in package for name, package in packages.items() if name)
    wanted = json.loads((NODE / "package.json").read_text())["dependencies"]
    assert packages[""]["dependencies"] == wanted
    assert all(re.fullmatch(r"[\d.]+", version) for version in wanted.values())
