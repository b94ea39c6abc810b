"""One worker: an agent on a connection to the broker, from the first look at the templates to the last ack."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from datetime import timedelta

from handrail.agents.beat import Beat
from handrail.agents.bindings import Bindings
from handrail.agents.broker_retry import PASSES, BrokerRetry
from handrail.agents.clock import Clock
from handrail.agents.company import Company
from handrail.agents.declaration import Declaration
from handrail.agents.engine import Engine
from handrail.agents.errors import DeclarationError
from handrail.agents.halted_flows import HaltedFlows, HaltWatch
from handrail.agents.in_flight import InFlight
from handrail.agents.threads import Threads
from handrail.mesh.bus import BusSettings, NatsBus, Pull
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ACK_WAIT, agent_durable
from handrail.mesh.streams.flow_store import FlowStore
from handrail.mesh.template import Template
from handrail.mesh.waiting import pause

_logger = logging.getLogger(__name__)

_CANCEL_AGAIN = 0.5
_REMIND = 30.0
"""Seconds; a worker that waits for a template that names it says so as often as this."""
_POLL = timedelta(seconds=2)
"""How often new templates are looked for."""


class Worker:
    """Runs an agent in this process. `sources` tells whether this worker runs the agent's sources.

    Workers in one process share a `company`: a handler that may kill the process runs alone in it.
    """

    def __init__(
        self, agent: Declaration, settings: BusSettings, *, sources: bool = True, company: Company | None = None
    ) -> None:
        self._agent = agent
        self._company = company or Company()
        self._settings = settings
        self._sources = agent.sources if sources else ()
        self._bindings = Bindings(agent.name, agent.handlers)
        self._stop = asyncio.Event()
        self.ready = asyncio.Event()
        """Set once the worker takes deliveries."""
        self.abandoned = 0
        """Handlers that did not end within the grace. A plain one can't be cancelled: its thread still runs."""

    def stop(self) -> None:
        """Asks the worker to stop: take nothing new, let handlers finish within the agent's grace, close."""
        self._stop.set()

    async def run(self) -> None:
        """Runs until `stop`.

        Raises DeclarationError if the handlers don't fit the active templates, HandrailError if the broker can't be
        reached or refuses the agent, and whatever a source raises.
        """
        async with await NatsBus.connect(self._settings) as bus:
            catalog = Catalog(bus)
            self._agent.attach(bus, catalog)
            try:
                await self._until_named(catalog)
                if not self._stop.is_set():
                    self._check(catalog)
                    await self._serve(bus, catalog)
            finally:
                self._agent.detach()

    async def _serve(self, bus: NatsBus, catalog: Catalog) -> None:
        agent, hints, clock = self._agent, HaltedFlows(), Clock()
        patience = BrokerRetry(clock)
        await HaltWatch(bus, hints, catalog.names).start()
        threads = Threads(agent.threads, agent.name)
        engine = Engine(
            bindings=self._bindings,
            bus=bus,
            store=FlowStore(bus, catalog),
            clock=clock,
            patience=patience,
            hints=hints,
            retries=agent.quick_retries,
            threads=threads,
            company=self._company,
        )
        hints.tell = engine.overseer.heard
        bus.connection.on_reconnected.append(engine.reconnected)
        desk = InFlight(engine, ACK_WAIT)
        beat = Beat(bus, catalog=catalog, bindings=self._bindings, overseer=engine.overseer, desk=desk)
        engine.overseer.tell = beat.tell
        pulling = _Pulling(agent, bus, desk)
        try:
            await pulling.begin_if_named(catalog.all())
            _logger.info("agent %s is ready", agent.name)
            self.ready.set()
            await self._until_stopped(
                bus,
                desk.heartbeats(),
                engine.overseer.watch(),
                beat.run(),
                self._learn(catalog, pulling, beat),
                *(source() for source in self._sources),
            )
        finally:
            # Work that waits for the broker is handed back at once; running handlers get the grace.
            patience.stop()
            await pulling.end()
            self.abandoned = await desk.drain(agent.grace)
            threads.shutdown()
            _logger.info("agent %s has stopped", agent.name)

    async def _until_stopped(self, bus: NatsBus, *beside: Awaitable[None]) -> None:
        """Runs the tasks beside the handlers until the worker is asked to stop; raises what any of them raises."""
        ends: set[asyncio.Future[object]] = {_task(self._stop.wait()), _task(bus.closed.wait())}
        pending = ends | {_task(each) for each in beside}
        try:
            while not any(end.done() for end in ends):
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for each in done:
                    each.result()
        finally:
            # Repeatedly: a task inside a failing call may report that failure instead of the cancellation.
            while pending:
                for each in pending:
                    each.cancel()
                _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN)
        if not self._stop.is_set():
            raise BrokerUnavailable(f"the broker closed the connection of agent {self._agent.name} for good")

    async def _until_named(self, catalog: Catalog) -> None:
        """Waits until a stored template names the agent."""
        remind_at = 0.0
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            await self._refresh(catalog)
            templates = catalog.all()
            if any(_has_steps(self._agent, t) or self._agent.name in t.started_by for t in templates):
                return
            if loop.time() >= remind_at:
                remind_at = loop.time() + _REMIND
                _logger.warning(
                    "no stored template names agent %s (stored: %s); it waits for one that does: "
                    "handrail template put FILE, then handrail template activate NAME@VERSION",
                    self._agent.name,
                    ", ".join(catalog.names()) or "none",
                )
            await pause(self._stop, _POLL)

    async def _learn(self, catalog: Catalog, pulling: _Pulling, beat: Beat) -> None:
        """Learns templates that are stored while the worker runs."""
        while True:
            await asyncio.sleep(_POLL.total_seconds())
            try:
                if await self._refresh(catalog):
                    beat.tell()
                    await pulling.begin_if_named(catalog.all())
                    self._check(catalog)
            except DeclarationError as error:
                _logger.error("agent %s must be redeployed: %s", self._agent.name, error)

    async def _refresh(self, catalog: Catalog) -> bool:
        """Looks for new templates; returns whether there are any. A silent broker is asked again later."""
        try:
            new = await catalog.refresh()
        except PASSES as error:
            _logger.warning("agent %s can't read the templates: %s", self._agent.name, error.text)
            return False
        self._bindings.learn(catalog.all())
        return new

    def _check(self, catalog: Catalog) -> None:
        """Checks the handlers against the versions of each flow type in which the agent has steps.

        If they fit none, it raises DeclarationError with what does not fit the version that new flows start with. If
        they fit some, the worker serves those, beside workers that serve the others: flows are pinned, so after an
        activation or a rollback both are needed until the last flow is done.
        """
        problems: list[str] = []
        for name in catalog.names():
            versions = [each for each in catalog.versions(name) if _has_steps(self._agent, each)]
            active = catalog.active_version(name)
            fits = any(not self._bindings.of(each).problems for each in versions)
            for template in versions:
                found = self._bindings.of(template).problems
                if not fits and template.version == (active or versions[-1].version):
                    problems += found
                    continue
                level = logging.ERROR if template.version == active else logging.WARNING
                for problem in found:
                    _logger.log(level, "agent %s: %s", self._agent.name, problem)
        if problems:
            raise DeclarationError(problems)


class _Pulling:
    """The pull on the agent's durable, started once a template has a step for the agent."""

    def __init__(self, agent: Declaration, bus: NatsBus, desk: InFlight) -> None:
        self._agent = agent
        self._bus = bus
        self._desk = desk
        self._pull: Pull | None = None

    async def begin_if_named(self, templates: tuple[Template, ...]) -> None:
        """Starts, unless it has started or no template has a step for the agent."""
        if self._pull is None and any(_has_steps(self._agent, template) for template in templates):
            self._pull = await self._bus.pull(
                FLOW,
                agent_durable(self._agent.name),
                in_flight=self._agent.in_hand,
                on_delivery=self._desk.take,
                on_problem=self._on_problem,
            )

    async def end(self) -> None:
        """Stops taking deliveries."""
        if self._pull is not None:
            await self._pull.stop()

    def _on_problem(self, problem: HandrailError) -> None:
        _logger.warning("agent %s gets no deliveries: %s", self._agent.name, problem.text)


def _has_steps(agent: Declaration, template: Template) -> bool:
    return any(step.agent == agent.name for step in template.steps.values())


def _task(awaitable: Awaitable[object]) -> asyncio.Future[object]:
    return asyncio.ensure_future(awaitable)
