"""The enums that the fold and the decisions read have their names as plain attributes, with the contract's values."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from handrail.coordinator import decide
from handrail.mesh import flow, fold
from handrail.v1.decision_pb2 import HaltMode


def modules(package: ModuleType) -> list[ModuleType]:
    names = [each.name for each in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


def test_every_enum_of_the_fold_and_of_the_decisions_is_settled() -> None:
    used = [
        (module.__name__, name, value)
        for package in (flow, fold, decide)
        for module in modules(package)
        for name, value in vars(module).items()
        if isinstance(value, EnumTypeWrapper)
    ]
    assert (decide.decide.__module__, "HaltMode", HaltMode) in used
    for module, name, enum in used:
        values = {key: value for key, value in vars(enum).items() if key.isupper() and key != "DESCRIPTOR"}
        assert values == dict(enum.items()), f"{module} reads {name}"
