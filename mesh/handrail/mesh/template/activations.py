"""The log of activations of a template: which entry rolled back, and where a rollback leads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from handrail.v1.template_pb2 import Activation
from handrail.v1.template_service_pb2 import LoggedActivation


def logged(activations: Iterable[Activation]) -> Iterator[LoggedActivation]:
    """The entries of a log, oldest first, each with its number and what it took the place of."""
    previous = 0
    for number, activation in enumerate(activations, 1):
        yield LoggedActivation(
            number=number,
            activation=activation,
            previous_version=previous,
            rollback=activation.version < previous,
        )
        previous = activation.version


def version_before(versions: Iterable[int]) -> int:
    """The version to go back to, of those that were activated, oldest first; 0 where none is left.

    What was rolled back from is no way back: after 1, 2, 3 and a rollback to 2, the next one leads to 1, not to 3.
    """
    standing: list[int] = []
    for version in versions:
        while standing and standing[-1] >= version:
            standing.pop()
        standing.append(version)
    return standing[-2] if len(standing) > 1 else 0
