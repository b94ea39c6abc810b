"""A copy of a frozen value equals the copy made by `dataclasses.replace`, for every class that is copied."""

from __future__ import annotations

import dataclasses

import pytest

from handrail.mesh import flow
from handrail.mesh.flow import proposal, starts, state
from handrail.mesh.flow.values import replace

CLASSES = sorted(
    {
        kind
        for module in (flow, proposal, starts, state)
        for kind in vars(module).values()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind) and hasattr(kind, "__slots__")
    },
    key=lambda kind: kind.__qualname__,
)


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_copy_is_the_one_that_the_standard_library_makes(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    value = kind(**{name: f"old {name}" for name in names})
    for name in names:
        assert replace(value, **{name: "new"}) == dataclasses.replace(value, **{name: "new"})
    assert value == kind(**{name: f"old {name}" for name in names}), "the value itself stays as it was"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_a_copy_of_a_frozen_value_is_as_frozen(kind: type) -> None:
    names = [field.name for field in dataclasses.fields(kind)]
    copy = replace(kind(**dict.fromkeys(names, "old")), **{names[0]: "new"})
    assert type(copy) is kind
    if kind is flow.Flow:
        return
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(copy, names[0], "newer")


def test_a_field_that_is_not_there_is_an_error() -> None:
    with pytest.raises(TypeError, match="'Starts' object has no attribute 'opened'"):
        replace(starts.NO_STARTS, opened=1)
