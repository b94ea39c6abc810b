"""What the SDK needs around it. A worker has it from the broker, a test from memory: what is in between is the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

from google.protobuf.any_pb2 import Any

from handrail.mesh.flow import Flow
from handrail.mesh.streams.start_flow import Started
from handrail.mesh.template import Template
from handrail.mesh.wire.envelope import Recorded
from handrail.v1.error_reason_pb2 import ErrorReason


class Templates(Protocol):
    """The stored templates."""

    async def refresh(self) -> bool:
        """Take up what was stored since the last time; whether there was anything."""

    def get(self, name: str, version: int) -> Template | None:
        """A version that is known already."""

    def versions(self, name: str) -> Sequence[Template]:
        """The known versions of a flow type."""

    def all(self) -> Sequence[Template]:
        """All known versions of all flow types."""

    def active_version(self, name: str) -> int:
        """The version that new flows begin with; 0 for none."""

    async def active(self, name: str) -> Template:
        """That version; FLOW_TYPE_NOT_FOUND where there is none."""


class Mesh(Protocol):
    """The broker, the flows and the clock."""

    @property
    def templates(self) -> Templates:
        """The stored templates."""

    def now(self) -> datetime:
        """The clock, in UTC."""

    async def sleep(self, duration: timedelta) -> None:
        """Let time pass."""

    async def publish(
        self,
        subject: str,
        body: bytes,
        *,
        expected_sequence: int | None = None,
        expected_filter: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> int:
        """Store a message of the FLOW stream; raises as `Bus.publish` does."""

    async def load(self, flow_type: str, flow_id: str, *, at_least: int = 0) -> Flow:
        """A flow, folded, with everything up to sequence `at_least`."""

    async def stored_outcome(self, flow_type: str, flow_id: str, agent: str, event_id: str) -> Recorded | None:
        """The outcome that the stream holds under this id."""

    async def start(self, template: Template, *, source: str, data: Any, key: str) -> Started:
        """Store the first event of a flow."""

    async def quarantine(
        self,
        *,
        subject: str,
        body: bytes,
        sequence: int,
        reason: ErrorReason.ValueType,
        detail: str,
        reporter: str,
    ) -> None:
        """Keep a message that breaks its contract."""


class Delivery(Protocol):
    """One message handed out to the agent; `handrail.mesh.bus.pull.Delivery` is one."""

    @property
    def subject(self) -> str:
        """Where it was published."""

    @property
    def body(self) -> bytes:
        """Its bytes."""

    @property
    def sequence(self) -> int:
        """Its position in the stream."""

    @property
    def delivered(self) -> int:
        """How often it was handed out, from 1."""

    @property
    def time(self) -> datetime:
        """When the stream stored it."""

    def ack(self) -> None:
        """Done."""

    def nak(self, delay: timedelta | None = None) -> None:
        """Not done: hand it out again, after `delay`."""

    def in_progress(self) -> None:
        """Still at it."""
