"""The check of licences against a policy."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compliance.v1.compliance_pb2 import Severity
from demos.compliance import settings
from demos.compliance.checks import spdx
from demos.compliance.checks.licences import Policy, check
from demos.compliance.checks.spdx import Verdict
from tests.support.distributions import at, install

POLICY = Policy.load(settings.SHIPPED_POLICY)
BARE = "Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n"
MIT_TEXT = b"Copyright\n\nPermission is hereby granted, free of charge, to any\nperson obtaining a copy of this"
BSD_TEXT = b"Redistribution and use in source and binary forms, with or without\nmodification, are permitted"


def codes(site: Path, also: str, files: dict[str, bytes] | None = None) -> list[str]:
    return [each.code for each in check(install(site, "it", metadata=BARE, also=also, files=files), POLICY).all]


@pytest.mark.parametrize(
    "also, expected",
    [
        ("License-Expression: MIT\n", []),
        ("License-Expression: mit OR GPL-3.0-only\n", []),
        ("License-Expression: MIT AND (GPL-3.0-only OR MPL-2.0)\n", ["LICENCE_NEEDS_PERSON"]),
        ("License-Expression: MIT AND GPL-3.0-only\n", ["LICENCE_DENIED"]),
        ("License-Expression: Apache-2.0 WITH LLVM-exception\n", []),
        ("License-Expression: LicenseRef-Ours\n", ["LICENCE_UNKNOWN"]),
        # What binds most comes first.
        ("License-Expression: MIT\nLicense: GPL-3.0-only\n", []),
        ("License: Apache 2.0\n", []),
        ("License: MPL-2.0\n", ["LICENCE_NEEDS_PERSON"]),
        ("License: GNU  GPL\n", ["LICENCE_DENIED"]),
        ("License: LGPL v3\n", ["LICENCE_NEEDS_PERSON"]),
        ("License: as is\n", ["LICENCE_UNKNOWN"]),
        ("License: BSD\nClassifier: License :: OSI Approved :: MIT License\n", []),
        ("Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)\n", ["LICENCE_DENIED"]),
        (
            "Classifier: License :: OSI Approved :: MIT License\n"
            "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)\n",
            ["LICENCE_NEEDS_PERSON"],
        ),
        ("Classifier: License :: OSI Approved :: BSD License\n", ["LICENCE_MISSING"]),
        ("Classifier: Topic :: MIT License\nClassifier: odd\n", ["LICENCE_MISSING"]),
        ("License-Expression: (MIT\nLicense: MIT\n", ["LICENCE_EXPRESSION"]),
        # An id may have letters that no SPDX id has: the library reads it as one that no policy knows.
        ("License-Expression: ÖSL-1.0\nLicense: MIT\n", ["LICENCE_UNKNOWN"]),
        ("", ["LICENCE_MISSING"]),
    ],
)
def test_the_licence_that_is_claimed_is_judged(also: str, expected: list[str], tmp_path: Path) -> None:
    assert codes(tmp_path, also) == expected


@pytest.mark.parametrize("folder", ["licenses/", ""])
def test_the_texts_of_licence_files_tell_where_nothing_else_does(folder: str, tmp_path: Path) -> None:
    path = f"it-1.0.dist-info/{folder}"
    assert codes(tmp_path, "License-File: LICENSE\n", {f"{path}LICENSE": MIT_TEXT}) == []
    assert codes(tmp_path, "License-File: L\n", {f"{path}L": BSD_TEXT}) == []
    both = {f"{path}A": MIT_TEXT, f"{path}B": b"GNU GENERAL PUBLIC LICENSE\n Version 3"}
    assert codes(tmp_path, "License-File: A\nLicense-File: B\n", both) == ["LICENCE_DENIED"]
    assert codes(tmp_path, "License-File: gone\n") == ["LICENCE_MISSING"]


def test_what_needs_a_person_is_grave_and_what_is_unknown_fails(tmp_path: Path) -> None:
    def severity(also: str) -> list[Severity.ValueType]:
        return [each.severity for each in check(install(tmp_path, "it", metadata=BARE, also=also), POLICY).all]

    assert severity("License: MPL-2.0\n") == [Severity.SEVERITY_GRAVE]
    assert severity("License: GPL-3.0-only\n") == [Severity.SEVERITY_GRAVE]
    assert severity("License: unheard-of\n") == [Severity.SEVERITY_FAILURE]


def test_metadata_that_cant_be_read_is_a_finding(tmp_path: Path) -> None:
    (tmp_path / "empty-1.dist-info").mkdir()
    assert [each.code for each in check(at(tmp_path, "empty-1.dist-info"), POLICY).all] == ["LICENCE_UNREADABLE"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MIT OR",
        "AND MIT",
        "MIT Apache-2.0",
        "()",
        "MIT)",
        "MIT; x",
        "WITH a",
        "(" * 999,
        "(a AND b OR " * 999 + "MIT" + ")" * 999,
    ],
)
def test_what_is_no_expression_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a licence expression"):
        spdx.verdict(text, POLICY.judge)


EXPRESSIONS = st.recursive(
    st.sampled_from(["MIT", "MPL-2.0", "GPL-3.0-only", "Ours"]).map(lambda id_: (id_, POLICY.judge(id_))),
    lambda inner: st.tuples(inner, st.booleans(), inner).map(
        lambda parts: (
            f"({parts[0][0]} {'OR' if parts[1] else 'AND'} {parts[2][0]})",
            (min if parts[1] else max)(parts[0][1], parts[2][1]),
        )
    ),
    max_leaves=12,
)


@given(EXPRESSIONS)
def test_a_choice_is_as_good_as_its_best_part_and_a_conjunction_as_bad_as_its_worst(each: tuple[str, Verdict]) -> None:
    text, verdict = each
    assert spdx.verdict(text, POLICY.judge) is verdict


@pytest.mark.parametrize(
    "text, says",
    [
        ("allowed: [MIT]\nforbidden: [GPL]\n", "forbidden"),
        ("allowed: [MIT]\ndenied: [mit]\n", "two lists"),
        ("- MIT\n", "not a policy"),
        ("allowed: [1]\n", "not a policy"),
        ("allowed: {", "not a policy"),
    ],
)
def test_a_policy_that_is_none_says_why(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "policy.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says):
        Policy.load(path)
