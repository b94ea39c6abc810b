"""A handler: a function and what the SDK knows about it."""

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
    """One event parameter: the messages it takes, and whether it takes a list of them."""

    name: str
    types: tuple[type[Message], ...]
    several: bool


@dataclass(frozen=True, slots=True)
class Handler:
    """One function and what the SDK knows about it.

    `inputs` maps the full names that it was declared for to their classes; `returns` has the full names that it may
    answer with; `may_return_nothing` and `several` tell whether it may answer with nothing or with more than one
    message. `step` and `flow_type` restrict what it is for; empty: any.
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
        """Tells whether it can answer with one type only: then a stored answer needs no further check."""
        return len(self.returns) + self.may_return_nothing == 1
