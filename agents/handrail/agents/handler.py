"""A handler: a function with what the SDK needs to know of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto

from google.protobuf.message import Message

Function = Callable[..., object]


class Purpose(Enum):
    """What a handler is called for."""

    STEP = auto()
    JOIN = auto()
    UNDO = auto()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One event parameter: which messages it takes, and whether it takes a list of them."""

    name: str
    types: tuple[type[Message], ...]
    several: bool


@dataclass(frozen=True, slots=True)
class Handler:
    """One function with what the SDK needs to know of it.

    `inputs` are the full names it was declared for, with their classes; `returns` the full names it may answer with,
    and `may_return_nothing` whether it may also answer with nothing. `several` is set where it may answer with more
    than one message. `step` and `flow_type` narrow what it is for; empty: any.
    """

    function: Function
    name: str
    purpose: Purpose
    inputs: dict[str, type[Message]]
    parameters: tuple[Parameter, ...]
    context_name: str
    returns: dict[str, type[Message]]
    may_return_nothing: bool
    several: bool
    asynchronous: bool
    step: str = ""
    flow_type: str = ""
    validate_inbound: bool = False

    @property
    def single_answer(self) -> bool:
        """Whether there is one type it can answer with, and no other: the first stored answer then needs no check."""
        return len(self.returns) + self.may_return_nothing == 1
