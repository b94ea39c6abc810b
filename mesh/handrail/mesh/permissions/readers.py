"""Readers: users that receive the messages of some flow types, live and from any sequence, and say nothing."""

from __future__ import annotations

from dataclasses import dataclass

from handrail.mesh.permissions.accounts import READERS
from handrail.mesh.permissions.names import inbox_prefix, reader_durable, require_name, require_token
from handrail.mesh.permissions.services import consuming
from handrail.mesh.permissions.user import User
from handrail.mesh.wire.subjects import NAME


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader and its flow types. Raises TEMPLATE_REFUSED for a name that can't be part of a subject."""

    name: str
    flow_types: tuple[str, ...]

    def __post_init__(self) -> None:
        require_name(self.name, "reader")
        for flow_type in self.flow_types:
            require_token(flow_type, NAME, "flow type")

    @property
    def filters(self) -> tuple[str, ...]:
        """The subjects in FLOW that its durable delivers."""
        return tuple(f"flow.{flow_type}.>" for flow_type in self.flow_types)

    def user(self) -> User:
        """Its user of the broker: it may move its durable to any sequence, and has no other say in it."""
        durable = reader_durable(self.name)
        asks = ("$JS.API.INFO", *consuming("FLOW", durable), f"$JS.API.CONSUMER.RESET.FLOW.{durable}")
        return User(self.name, READERS, asks, (f"{inbox_prefix(self.name)}.>",))
