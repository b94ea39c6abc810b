"""The activation log of a template: which entries were rollbacks, and which version a rollback leads to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from handrail.v1.template_pb2 import Activation
from handrail.v1.template_service_pb2 import LoggedActivation


def logged(activations: Iterable[Activation]) -> Iterator[LoggedActivation]:
    """The entries of a log, oldest first, each with its number and the version it replaced."""
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
    """The version to roll back to, given the activated versions, oldest first; 0 if none is left.

    A version that was rolled back is skipped: after 1, 2, 3 and a rollback to 2, the next rollback leads to 1, not 3.
    """
    standing: list[int] = []
    for version in versions:
        while standing and standing[-1] >= version:
            standing.pop()
        standing.append(version)
    return standing[-2] if len(standing) > 1 else 0
