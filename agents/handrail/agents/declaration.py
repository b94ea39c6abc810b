"""The declaration of an agent: what it reacts to, and what it can do while it runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

from google.protobuf.message import Message

from handrail.agents.errors import AgentNotRunning, DeclarationError
from handrail.agents.handler import Function, Handler, Purpose
from handrail.agents.invoke import QuickRetries
from handrail.agents.read_handler import read_handler
from handrail.mesh.errors import HandrailError
from handrail.mesh.permissions import RESERVED
from handrail.mesh.streams import start_flow
from handrail.mesh.wire.envelope import pack
from handrail.mesh.wire.subjects import NAME
from handrail.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from handrail.mesh.bus import Bus
    from handrail.mesh.streams.catalog import Catalog

F = TypeVar("F", bound=Function)

Source = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class StartedFlow:
    """A started flow. `already_started` is true if an earlier call with its key started it."""

    flow_id: str
    already_started: bool


class Declaration:
    """An agent's name, its handlers and how it runs them: see `Agent`."""

    def __init__(
        self,
        name: str,
        *,
        concurrency: int = 100,
        threads: int = 16,
        validate_inbound: bool = False,
        quick_retries: QuickRetries | None = None,
        grace: timedelta = timedelta(seconds=20),
    ) -> None:
        if not NAME.fullmatch(name) or name in RESERVED:
            raise DeclarationError(
                [
                    f'"{name}" is not a valid agent name: use lower-case letters, digits, - and _, a letter first, '
                    f"but not {', '.join(sorted(RESERVED))}"
                ]
            )
        self.name = name
        self.concurrency = concurrency
        self.threads = threads
        self.grace = grace
        self.quick_retries = quick_retries or QuickRetries()
        self._validate_inbound = validate_inbound
        self._handlers: list[Handler] = []
        self._sources: list[Source] = []
        self._attached: tuple[Bus, Catalog] | None = None

    @property
    def handlers(self) -> Sequence[Handler]:
        """The declared handlers."""
        return tuple(self._handlers)

    @property
    def in_hand(self) -> int:
        """The most deliveries that a worker takes at a time: as many as it can start. The rest wait at the broker."""
        plain = all(not handler.asynchronous for handler in self._handlers)
        return min(self.concurrency, self.threads) if plain and self._handlers else self.concurrency

    @property
    def sources(self) -> Sequence[Source]:
        """The sources that run beside the handlers."""
        return tuple(self._sources)

    def on(
        self, *events: type[Message], step: str = "", flow_type: str = "", validate_inbound: bool | None = None
    ) -> Callable[[F], F]:
        """Decorates a function that handles each of these events, one at a time.

        It takes the event and optionally a `Context`; it returns a message, several or nothing, as annotated. `step`
        and `flow_type` select its step if several steps wait for the same event.
        """
        return self._declare(Purpose.STEP, events, step, flow_type, validate_inbound)

    def on_all(
        self, *events: type[Message], step: str = "", flow_type: str = "", validate_inbound: bool | None = None
    ) -> Callable[[F], F]:
        """Decorates a function that handles these events together, once all have arrived: a join.

        Each event has its own parameter, identified by its annotation: `Invoice`, or `list[Finding]` for counted
        events.
        """
        return self._declare(Purpose.JOIN, events, step, flow_type, validate_inbound)

    def undoes(
        self, *events: type[Message], step: str = "", flow_type: str = "", validate_inbound: bool | None = None
    ) -> Callable[[F], F]:
        """Decorates a function that undoes the effect of a step that reported one of these events.

        It may be called again, with the same idempotency key, for work that is already undone: then it does nothing.
        """
        return self._declare(Purpose.UNDO, events, step, flow_type, validate_inbound)

    def source(self, function: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """Decorates an async function that runs beside the handlers, from the start, and starts flows.

        Only one of several workers runs it. When it returns, the agent continues; when it raises, the agent stops with
        its error.
        """
        self._sources.append(function)
        return function

    async def start_flow(self, flow_type: str, event: Message, *, key: str = "") -> StartedFlow:
        """Starts a flow of the active version with its first event.

        Calls with the same `key` start one flow and return it each time. Raises AgentNotRunning, and HandrailError:
        FLOW_TYPE_NOT_FOUND, WRONG_AGENT if the template does not list this agent in `started_by`, UNKNOWN_MESSAGE_TYPE
        if no flow of this type starts with this event, CONTRACT_VIOLATION with field and rule, STREAM_FULL,
        BROKER_UNAVAILABLE. With a key, the call can be repeated after any of them.
        """
        if self._attached is None:
            raise AgentNotRunning(f"agent {self.name} is not running: start flows from a source or a handler")
        bus, catalog = self._attached
        template = await catalog.active(flow_type)
        if self.name not in template.started_by:
            raise HandrailError(
                ErrorReason.ERROR_REASON_WRONG_AGENT,
                f"agent {self.name} may not start {flow_type}: version {template.version} lists "
                f"{', '.join(sorted(template.started_by)) or 'nobody'} in started_by",
                agent=self.name,
            )
        started = await start_flow.start(
            bus, template, source=self.name, data=pack(event), key=key, template_of=catalog.template
        )
        return StartedFlow(started.flow_id, started.already_started)

    def attach(self, bus: Bus, catalog: Catalog) -> None:
        """Gives the agent the means to start flows; its runner calls this."""
        self._attached = bus, catalog

    def detach(self) -> None:
        """It does not run any more."""
        self._attached = None

    def _declare(
        self,
        purpose: Purpose,
        events: tuple[type[Message], ...],
        step: str,
        flow_type: str,
        validate_inbound: bool | None,
    ) -> Callable[[F], F]:
        def declare(function: F) -> F:
            self._handlers.append(
                read_handler(
                    function,
                    purpose,
                    events,
                    step=step,
                    flow_type=flow_type,
                    validate_inbound=self._validate_inbound if validate_inbound is None else validate_inbound,
                )
            )
            return function

        return declare
