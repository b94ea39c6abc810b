"""`handrail template check` gives the findings of files, for people, programs and code hosts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from handrail.analysis.check.typecheck import CODES
from handrail.cli.main import main
from tests.support.shop import set_of, shop_file
from tests.unit.mesh.template.test_yaml_reader import REFUND


@pytest.fixture
def wrong(tmp_path: Path) -> Path:
    path = tmp_path / "a wrong one.yaml"
    path.write_text(REFUND.read_text().replace("[payments.v1.RefundPaid]", "[payments.v1.RefundPayed]", 1))
    return path


@pytest.fixture
def warned(tmp_path: Path) -> Path:
    path = tmp_path / "warned.yaml"
    path.write_text(REFUND.read_text().replace("timeout: 30s", "timeout: 90000s", 1))
    return path


def check(*arguments: object) -> int:
    return main(["template", "check", *map(str, arguments), "--contracts", "demos.payments"])


def test_a_sound_template_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert check(REFUND, "--strict") == 0
    assert capsys.readouterr().out == "1 checked: 0 errors, 0 warnings\n"


def test_findings_are_told_with_file_line_and_column(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(REFUND, wrong) == 1
    out = capsys.readouterr().out
    assert f"{wrong}:31:13: error HR002 steps[2].emits[0]: the contracts have no message" in out


def test_what_is_found_at_several_places_is_told_once_with_all_of_them(
    wrong: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong.write_text(wrong.read_text().replace("payments.v1.RefundPaid", "payments.v1.RefundPayed"))
    wrong.write_text(wrong.read_text().replace("RefundPayedyed", "RefundPayed"))
    assert check(wrong) == 1
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if "RefundPayed" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"{wrong}:31:13: error HR002 steps[2].emits[0]: ")
    assert "    also at " in out
    assert " steps[3].after[0]" in out
    assert out.endswith("1 checked: 1 errors, 0 warnings\n")


@pytest.mark.parametrize("words", [("template", "put"), ("template", "check")])
def test_without_contracts_the_flag_is_named(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, str(REFUND)]) == 2
    assert capsys.readouterr().err == (
        f"handrail: the messages of {REFUND} are unknown: name their descriptors with --contracts IMAGE, an image from "
        "`buf build -o IMAGE.binpb`, or a Python module with MESSAGES\n"
    )


def test_warnings_fail_only_where_asked_to(warned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(warned) == 0
    assert check(warned, "--strict") == 1
    assert "warning HR028 steps[0].timeout" in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, line, why",
    [
        ("name: refund\nvision: 1\n", 2, 'there is no field "vision"; did you mean version?'),
        ("name: refund\nversion: 1\nversion: 2\n", 3, "field version occurs twice"),
        ("steps: &a [*a]\n", 1, "a template can't have anchors and aliases"),
        ("", 1, "this file contains no template"),
        ("steps: [{after: {", 1, ""),
        ("[" * 40, 1, "nested more than 16 levels deep"),
    ],
)
def test_a_file_that_holds_no_template_is_a_finding_and_the_others_are_checked(
    text: str, line: int, why: str, wrong: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    assert check(broken, wrong, "--output", "json") == 1
    first, *others = json.loads(capsys.readouterr().out)["findings"]
    assert (first["file"], first["code"], first["line"]) == (str(broken), "HR030", line)
    assert why in first["text"]
    assert {other["file"] for other in others} == {str(wrong)}


def test_sarif_names_every_rule_and_points_at_each_result(wrong: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(wrong, "--output", "sarif") == 1
    log = json.loads(capsys.readouterr().out)
    (run,) = log["runs"]
    assert log["version"] == "2.1.0"
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == sorted(CODES)
    result = run["results"][0]
    assert run["tool"]["driver"]["rules"][result["ruleIndex"]]["id"] == result["ruleId"] == "HR002"
    assert result["level"] == "error"
    place = result["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"].endswith("/a%20wrong%20one.yaml")
    assert place["region"] == {"startLine": 31, "startColumn": 13}


def test_a_file_that_is_not_there_is_a_wrong_argument(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(tmp_path / "nothing.yaml") == 2
    assert "can't be read" in capsys.readouterr().err


@pytest.mark.parametrize("image", [b"no image", b"PK\x03\x04" + bytes(40), b"\n\x05ab", bytes(1_000_001)])
def test_contracts_that_are_none_are_refused(image: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "image.binpb"
    path.write_bytes(image)
    assert main(["template", "check", str(REFUND), "--contracts", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"handrail: {path}: ")


@pytest.mark.parametrize(
    "condition, why",
    [
        (f"'{'x' * 20_000}' == ''", "at most 10000"),
        ("(" * 200 + "true" + ")" * 200, "does not type-check"),
        ("[" * 200 + "]" * 200 + " == []", "does not type-check"),
        ("event.amount.units.units > 1", "does not type-check"),
        ("[1,2].all(a, [1,2].all(b, [1,2].all(c, a + b + c > event.chargeback_id)))", "does not type-check"),
    ],
)
def test_a_condition_that_can_not_be_taken_is_refused_at_its_place(
    condition: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "refund.yaml"
    path.write_text(REFUND.read_text().replace("when: event.amount.units >= 1000", f'when: "{condition}"'))
    assert check(path, "--output", "json") == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    (finding,) = [each for each in found if each["path"] == "gates[0].when"]
    lines = path.read_text().splitlines()
    gates = lines.index("gates:")
    line = next(number for number, text in enumerate(lines, 1) if number > gates and text.startswith("    when:"))
    assert (finding["line"], finding["column"]) == (line, 5)
    assert why in finding["text"] + CODES[finding["code"]].title


def test_a_regular_expression_that_blows_up_elsewhere_takes_its_time_here(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "refund.yaml"
    condition = "event.chargeback_id.matches('^(([a-z])+.)+[A-Z]([a-z])+$')"
    path.write_text(REFUND.read_text().replace("when: event.amount.units >= 1000", f'when: "{condition}"'))
    assert check(path) == 0


def test_contracts_that_refer_to_themselves_are_followed_as_far_as_asked(tmp_path: Path) -> None:
    node = shop_file({"Node": {"next": "shop.v1.Node", "key": "string"}, "End": {}})
    image = tmp_path / "image.binpb"
    image.write_bytes(set_of(node))
    path = tmp_path / "walk.yaml"
    path.write_text(WALK)
    assert main(["template", "check", str(path), "--contracts", str(image)]) == 0


WALK = """\
name: walk
version: 1
starts_with: [shop.v1.Node]
completes_with: [shop.v1.End]
deadline: 60s
steps:
  - {name: go, agent: walker, after: [shop.v1.Node], emits: [shop.v1.End], effect: NONE, timeout: 5s}
gates:
  - name: far
    on: shop.v1.End
    approvers: {roles: [boss]}
    expires_after: 5s
    on_reject: FAIL
rules:
  - {name: deep, on: [shop.v1.Node], when: event.next.next.next.next.key != '', then: FAIL}
"""
