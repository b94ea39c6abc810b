"""Who is who: names that look the same are the same person, and names that nobody can tell apart are nobody's."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from handrail.mesh.wire.identity import canonical, same, why_ambiguous


@pytest.mark.parametrize(
    "other",
    [
        "anna",
        "Anna",
        "ANNA",
        " anna",
        "anna ",
        "anna\u00a0",
        "\u200banna",
        "an\u00adna",
        "\uff41nna",
        "\ufe0fanna",
        "\U0001d41anna",
    ],
)
def test_a_name_is_the_same_person_however_it_is_written(other: str) -> None:
    assert same("anna", other)
    assert not why_ambiguous(other)


@given(st.text(st.characters(max_codepoint=127)))
def test_a_name_in_ascii_is_the_same_person_as_with_a_letter_that_nobody_sees(name: str) -> None:
    """A name in plain ASCII is compared in one step; with the invisible letter it takes all steps."""
    assert canonical(name) == canonical(f"\u200b{name}")
    assert why_ambiguous(name) == why_ambiguous(f"\u200b{name}") == ""


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert same("zo\u00eb", unicodedata.normalize("NFD", "zo\u00eb"))
    assert same("Straße", "STRASSE")
    assert same("anna  maria", "Anna\tMaria")


@pytest.mark.parametrize("other", ["anne", "ann a", "anna2", "zoe\u0308x", ""])
def test_another_name_is_another_person(other: str) -> None:
    assert not same("anna", other)


@pytest.mark.parametrize(
    "name, scripts",
    [("\u0430nna", "Cyrillic and Latin"), ("\u03bflga", "Greek and Latin"), ("ben\u0585", "Armenian and Latin")],
)
def test_a_name_of_scripts_that_look_alike_is_nobodys(name: str, scripts: str) -> None:
    assert scripts in why_ambiguous(name)


@pytest.mark.parametrize(
    "name",
    [
        "anna",
        "\u0430\u043d\u043d\u0430",
        "\u1f0c\u03bd\u03bd\u03b1",
        "\u5c71\u7530 taro",
        "agent/ledger",
        "anna@example.com",
        "",
    ],
)
def test_a_name_of_one_such_script_is_somebodys(name: str) -> None:
    assert not why_ambiguous(name)


@given(st.text(max_size=40))
def test_the_canonical_form_stays_as_it_is(name: str) -> None:
    once = canonical(name)
    assert canonical(once) == once
    assert once == once.strip()
    assert same(name, once)


def _ignorable() -> list[int]:
    """Unicode's Default_Ignorable_Code_Point (DerivedCoreProperties.txt, 15.0), which no font shows."""
    ranges = (
        *((0xAD, 0xAD), (0x34F, 0x34F), (0x61C, 0x61C), (0x115F, 0x1160), (0x17B4, 0x17B5), (0x180B, 0x180F)),
        *((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x206F), (0x3164, 0x3164), (0xFE00, 0xFE0F), (0xFEFF, 0xFEFF)),
        *((0xFFA0, 0xFFA0), (0xFFF0, 0xFFF8), (0x1BCA0, 0x1BCA3), (0x1D173, 0x1D17A), (0xE0000, 0xE0FFF)),
    )
    return [point for first, last in ranges for point in range(first, last + 1)]


def test_p6_what_nobody_sees_makes_nobody_else() -> None:
    others = [point for point in (*_ignorable(), 0x2800, 0x1D159) if not same(f"an{chr(point)}na", "anna")]
    assert others == []
