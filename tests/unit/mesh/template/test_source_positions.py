"""A finding points at the place in the YAML that it is about."""

from __future__ import annotations

import pytest

from handrail.mesh.template.source_positions import Place, Places
from handrail.mesh.template.yaml_reader import read_yaml
from handrail.v1.template_pb2 import Finding

TEXT = """\
name: order
steps:
  - name: pick
    after: [shop.v1.Asked,
            shop.v1.Missed]
    retry: {max_attempts: 3}
"""


@pytest.mark.parametrize(
    "path, place",
    [
        ("", (1, 1)),
        ("name", (1, 1)),
        ("steps", (2, 1)),
        ("steps[0]", (3, 5)),
        ("steps[0].after", (4, 5)),
        ("steps[0].after[1]", (5, 13)),
        ("steps[0].retry.max_attempts", (6, 13)),
        ("steps[0].timeout", (3, 5)),  # missing: it stands where its step does
        ("steps[0].undo.timeout", (3, 5)),
        ("gates[3].on", (1, 1)),
    ],
)
def test_every_part_has_its_place(path: str, place: tuple[int, int]) -> None:
    assert read_yaml(TEXT).places.of(path) == Place(*place)


def test_findings_get_their_place_and_keep_the_rest() -> None:
    (found,) = read_yaml(TEXT).places.located([Finding(code="HR001", path="steps[0].after[1]", text="why")])
    assert found == Finding(code="HR001", path="steps[0].after[1]", text="why", line=5, column=13)


def test_what_was_read_from_nowhere_has_the_first_place() -> None:
    assert Places().of("steps[0]") == Place(1, 1)
