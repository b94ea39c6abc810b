"""Environments of the CEL engine: the types of an expression's variables, and the functions beside the standard ones.

An environment takes a few milliseconds to learn the contracts, and memory for all of them, at its first expression. So
the expressions of a template share one.
"""

from __future__ import annotations

from functools import lru_cache

from cel_expr_python import cel

from handrail.mesh.conditions.finite import CHECK, SUM, check
from handrail.mesh.conditions.look_ups import COUNTS, ELAPSED, EVENT, FACTS, FIRST, LATEST, PROPOSALS, variable
from handrail.mesh.contracts import Contracts
from handrail.v1.failure_pb2 import StepCompleted

Types = tuple[str, ...]
"""The message types of a template, in order: the number of a type is its place."""


@lru_cache(maxsize=32)
def shared(contracts: Contracts, types: Types, has_elapsed: bool) -> cel.Env:
    """The environment with all variables that the names and look-ups of a template may become."""
    declared = {}
    for number, name in enumerate(types):
        declared[variable(COUNTS, number)] = cel.Type.INT
        if contracts.knows(name):
            one = cel.Type(name)
            declared |= dict.fromkeys((variable(table, number) for table in (EVENT, FIRST, LATEST)), one)
            declared |= dict.fromkeys((variable(table, number) for table in (FACTS, PROPOSALS)), cel.Type.List(one))
    if has_elapsed:
        declared[ELAPSED] = cel.Type.DURATION
    return cel.NewEnv(descriptor_pool=contracts.pool, variables=declared, functions=_functions())


@lru_cache(maxsize=8)
def own(contracts: Contracts, variables: tuple[tuple[str, str, str], ...]) -> cel.Env:
    """An environment with these variables only: name, table and message type.

    Raises UNKNOWN_MESSAGE_TYPE for a type that the contracts do not have.
    """
    declared = {}
    for name, table, message_type in variables:
        if table == COUNTS:
            declared[name] = cel.Type.INT
        elif table == ELAPSED:
            declared[name] = cel.Type.DURATION
        else:
            contracts.message_class(message_type)  # raises for unknown types, before the engine does
            one = cel.Type(message_type)
            declared[name] = cel.Type.List(one) if table in (FACTS, PROPOSALS) else one
    return cel.NewEnv(descriptor_pool=contracts.pool, variables=declared, functions=_functions())


def forget() -> None:
    """Frees the environments that are kept. The next expression takes longer to compile."""
    shared.cache_clear()
    own.cache_clear()


_A_MESSAGE = cel.Type(StepCompleted.DESCRIPTOR.full_name)
"""Represents messages of any type in the look-up of functions."""


def _functions() -> list[cel.FunctionDecl]:
    """The check of numbers, for each kind of value; and the overloads of `sum`, which is rewritten as a loop."""
    kinds = [
        cel.Type.BOOL, cel.Type.INT, cel.Type.UINT, cel.Type.DOUBLE, cel.Type.STRING, cel.Type.BYTES, cel.Type.NULL,
        cel.Type.DURATION, cel.Type.TIMESTAMP, cel.Type.TYPE, cel.Type.LIST, cel.Type.MAP, _A_MESSAGE,
    ]  # fmt: skip
    checks = [
        cel.Overload(f"{CHECK}_{number}", return_type=cel.Type.BOOL, parameters=[kind, cel.Type.STRING], impl=check)
        for number, kind in enumerate(kinds)
    ]
    # The engine wants one implementation per name, and can't tell two list types apart.
    sums = [cel.Overload(f"{SUM}_int", cel.Type.INT, [cel.Type.List(cel.Type.INT)], True, _not_evaluated)]
    for kind in (cel.Type.UINT, cel.Type.DOUBLE, cel.Type.DURATION):
        sums.append(cel.Overload(f"{SUM}_{kind.name()}", kind, [cel.Type.List(kind)], True))
    return [cel.FunctionDecl(CHECK, checks), cel.FunctionDecl(SUM, sums)]


def _not_evaluated(_: object) -> int:
    raise AssertionError("sums have been rewritten as loops")
