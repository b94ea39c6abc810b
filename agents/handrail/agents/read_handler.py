"""Reads what a handler takes and returns from its annotations, once, when it is declared."""

from __future__ import annotations

import collections.abc
import inspect
import types
import typing
from collections.abc import Sequence

from google.protobuf.message import Message

from handrail.agents.context import Context
from handrail.agents.errors import DeclarationError
from handrail.agents.handler import Function, Handler, Parameter, Purpose

_SEVERAL = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Iterator)
_GENERATORS = (collections.abc.Generator,)


def read_handler(
    function: Function,
    purpose: Purpose,
    inputs: Sequence[type[Message]],
    *,
    step: str = "",
    flow_type: str = "",
    validate_inbound: bool = False,
) -> Handler:
    """Reads a handler's annotations; raises DeclarationError with what is missing or can't be understood."""
    name = f"{function.__module__}.{function.__qualname__}"
    if not inputs:
        raise DeclarationError([f"{name}: say which messages it is for, e.g. @agent.on(OrderPlaced)"])
    for each in inputs:
        if not _is_message(each):
            raise DeclarationError([f"{name}: {each!r} is not a protobuf message class"])
    hints = _hints(function, name)
    by_name = {each.DESCRIPTOR.full_name: each for each in inputs}
    parameters, context_name = _parameters(function, name, hints, purpose, tuple(inputs))
    returns, nothing, several = _returns(hints, name)
    if purpose is Purpose.UNDO and several:
        raise DeclarationError([f"{name}: an undo must answer with one message, or nothing"])
    return Handler(
        function=function,
        name=name,
        purpose=purpose,
        inputs=by_name,
        parameters=parameters,
        context_name=context_name,
        returns=returns,
        may_return_nothing=nothing,
        several=several,
        asynchronous=inspect.iscoroutinefunction(function),
        step=step,
        flow_type=flow_type,
        validate_inbound=validate_inbound,
    )


def _hints(function: Function, name: str) -> dict[str, object]:
    try:
        return typing.get_type_hints(function)
    except (NameError, TypeError) as error:
        raise DeclarationError([f"{name}: its annotations can't be resolved: {error}"]) from error


def _parameters(
    function: Function,
    name: str,
    hints: dict[str, object],
    purpose: Purpose,
    inputs: tuple[type[Message], ...],
) -> tuple[tuple[Parameter, ...], str]:
    """Returns the event parameters in order, and the name of the Context parameter, empty if it has none."""
    parameters: list[Parameter] = []
    context_name = ""
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            raise DeclarationError([f"{name}: *{parameter.name} can't be filled; declare each parameter by name"])
        hint = hints.get(parameter.name)
        if hint is Context:
            context_name = parameter.name
            continue
        found, _, several = _messages(hint) if hint is not None else ({}, False, False)
        classes = tuple(found.values())
        if not classes and purpose is not Purpose.JOIN and not parameters:
            classes = inputs  # the event parameter of a step needs no annotation: the decorator names its type
        if not classes:
            if parameter.default is not parameter.empty:
                continue
            raise DeclarationError([f"{name}: parameter {parameter.name} is neither a message nor a Context"])
        parameters.append(Parameter(parameter.name, classes, several))
    _check_parameters(name, parameters, purpose, inputs)
    return tuple(parameters), context_name


def _check_parameters(
    name: str, parameters: Sequence[Parameter], purpose: Purpose, inputs: tuple[type[Message], ...]
) -> None:
    taken = [each.DESCRIPTOR.full_name for parameter in parameters for each in parameter.types]
    wanted = {each.DESCRIPTOR.full_name for each in inputs}
    if purpose is not Purpose.JOIN and len(parameters) != 1:
        raise DeclarationError([f"{name}: it must take one event and, optionally, a Context"])
    missing, strange = wanted - set(taken), set(taken) - wanted
    if missing:
        raise DeclarationError([f"{name}: no parameter takes {', '.join(sorted(missing))}"])
    if purpose is Purpose.JOIN and strange:
        raise DeclarationError([f"{name}: it is not declared for {', '.join(sorted(strange))}"])
    if purpose is Purpose.JOIN and len(taken) != len(set(taken)):
        raise DeclarationError([f"{name}: two parameters take the same message; each message needs one parameter"])
    if purpose is not Purpose.JOIN and parameters[0].several:
        raise DeclarationError([f"{name}: only a join (@agent.on_all) may take a list"])


def _returns(hints: dict[str, object], name: str) -> tuple[dict[str, type[Message]], bool, bool]:
    if "return" not in hints:
        raise DeclarationError(
            [f"{name}: annotate what it returns, e.g. -> OrderPaid, -> OrderPaid | OrderRefused, or -> None"]
        )
    found, nothing, several = _messages(hints["return"])
    if not found and not nothing:
        raise DeclarationError([f"{name}: {hints['return']!r} names no message that it could return"])
    return found, nothing or (several and not found), several


def _messages(hint: object) -> tuple[dict[str, type[Message]], bool, bool]:
    """Returns the messages that an annotation names, whether it allows None, and whether it allows several."""
    if hint is None or hint is type(None):
        return {}, True, False
    if _is_message(hint):
        message = typing.cast(type[Message], hint)
        return {message.DESCRIPTOR.full_name: message}, False, False
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        parts = [_messages(argument) for argument in arguments]
        several = any(part[2] for part in parts)
    elif origin in _SEVERAL or origin in _GENERATORS:
        arguments = arguments[:1] if origin in _GENERATORS else arguments
        parts = [_messages(argument) for argument in arguments if argument is not Ellipsis]
        several = True
    else:
        return {}, False, False
    merged: dict[str, type[Message]] = {}
    for part in parts:
        merged.update(part[0])
    # An empty list answers with nothing.
    nothing = any(part[1] for part in parts) or (several and origin is not tuple)
    return merged, nothing, several


def _is_message(hint: object) -> bool:
    return isinstance(hint, type) and issubclass(hint, Message) and hint is not Message
