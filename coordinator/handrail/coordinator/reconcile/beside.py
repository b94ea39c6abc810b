"""Lets others pass while one agent's messages fill a durable: their messages are delivered by a consumer beside it.

A durable delivers in the order of the stream. If one agent publishes faster than the coordinators can follow, all
others would wait behind it. The consumer beside the durable begins where the durable stands and leaves that agent out.
It only saves time: each of its messages is delivered by the durable as well, when its turn comes, and only that counts
as handled. So while the broker does not serve it, others wait, and nothing else is wrong. All replicas share it. The
broker ends it when nobody has asked it for a while.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable
from datetime import timedelta
from typing import Any, Protocol

from handrail.coordinator.reconcile.consuming import Note, ignore
from handrail.coordinator.reconcile.crowd import Crowd
from handrail.coordinator.reconcile.supervise import keep_running
from handrail.coordinator.reconcile.traffic import how_to_stop
from handrail.coordinator.reconcile.troubles import Troubles
from handrail.mesh import telemetry
from handrail.mesh.bus import ApiError, Bus, Delivery
from handrail.mesh.bus.api import CONSUMER_NOT_FOUND
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams import FLOW
from handrail.mesh.streams.catalog import Catalog
from handrail.mesh.streams.durables import ACK_WAIT, coordinator_filters
from handrail.mesh.waiting import pause
from handrail.mesh.wire.subjects import COORDINATOR, agent_of

log = logging.getLogger(__name__)

_EVERY = timedelta(milliseconds=250)
_PATIENCE = timedelta(seconds=5)
"""How long a request to the broker is tried before the next look."""

_INACTIVE = timedelta(seconds=30)


class Consumer(Protocol):
    """Consumes a durable, or the consumer beside it."""

    @property
    def problem(self) -> str:
        """The reason why nothing can be consumed at the moment; empty if consuming works."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set."""


Make = Callable[[str, Note], Consumer]
"""Makes the consumer of a durable of this name."""


class WithBeside:
    """Consumes a durable of FLOW, and what is beside it while it is crowded. `make` makes the consumers of both.

    `count` is told of each delivery of the durable.
    """

    def __init__(
        self, bus: Bus, catalog: Catalog, troubles: Troubles, *, durable: str, make: Make, count: Note = ignore
    ) -> None:
        self._bus = bus
        self._catalog = catalog
        self._troubles = troubles
        self._durable = durable
        self._name = f"{durable}-beside"
        self._make = make
        self._crowd = Crowd()
        self._consumer = make(durable, _both(count, _counting(self._crowd)))
        self._left_out: set[str] = set()
        self._is_blocked = False

    @property
    def problem(self) -> str:
        """The reason why the durable can't be consumed at the moment; empty if consuming works."""
        return self._consumer.problem

    @property
    def left_out(self) -> frozenset[str]:
        """The agents that crowd the durable; empty if all is well."""
        return frozenset(self._left_out)

    async def run(self, stopping: asyncio.Event) -> None:
        """Consumes until `stopping` is set, then finishes the deliveries in progress."""
        watching = asyncio.create_task(keep_running(self._name, self._watch, stopping, self._troubles))
        try:
            await self._consumer.run(stopping)
        finally:
            if not stopping.is_set():
                watching.cancel()
            await asyncio.wait({watching})

    async def _watch(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await pause(stopping, _EVERY)
            if agent := self._crowd.look():
                await self._let_pass(agent, stopping)

    async def _let_pass(self, agent: str, stopping: asyncio.Event) -> None:
        """Consumes beside the durable until hardly anything waits for it. An agent that crowds it too is left out."""
        crowd, over = Crowd(self._crowd.known), asyncio.Event()
        consumer = self._make(self._name, _counting(crowd))
        try:
            await self._unless_blocked(self._leave_out(agent))
            consuming = asyncio.create_task(consumer.run(over))
            try:
                while not (stopping.is_set() or consuming.done() or self._crowd.is_calm):
                    await pause(stopping, _EVERY)
                    await self._unless_blocked(self._look(crowd, consumer))
            finally:
                over.set()
                await consuming
        finally:
            self._left_out.clear()
            self._is_blocked = False
        log.warning("nobody crowds %s any more: it alone delivers all messages again", self._durable)

    async def _unless_blocked(self, step: Coroutine[None, None, None]) -> None:
        """Takes a step. If the broker does not allow it, others wait: logged once until nobody crowds the durable."""
        try:
            await step
        except HandrailError as error:
            if not self._is_blocked:
                self._is_blocked = True
                log.warning("others wait in %s too, until %s works: %s", self._durable, self._name, error.text)

    async def _look(self, crowd: Crowd, consumer: Consumer) -> None:
        if self._crowd.is_silent and (durable := await self._info(self._durable)) is not None:
            self._crowd.pending = int(durable["num_pending"])  # other replicas may have taken the rest
        self._crowd.look()
        if agent := crowd.look(self._left_out):
            await self._leave_out(agent)
        elif consumer.problem:
            await self._ensure()

    async def _leave_out(self, agent: str) -> None:
        if agent not in self._left_out:
            self._left_out.add(agent)
            telemetry.count("crowded", durable=self._durable, agent=agent)
            log.error("%s", crowds(agent, self._durable))
        await self._ensure()

    async def _ensure(self) -> None:
        """Creates the consumer, or leaves more agents out of it than another replica did."""
        wanted = filters_beside(self._durable, self._agents() - self._left_out)
        info = await self._info(self._name)
        if info is None:
            durable = await self._info(self._durable)
            position = int(durable["delivered"]["stream_seq"]) if durable is not None else 0
            config = _config(self._name, wanted, after=position)
        else:
            config = info["config"]
            present = set(config["filter_subjects"])
            if present <= wanted:
                return
            config["filter_subjects"] = sorted(present & wanted)
        await self._bus.request_json(
            f"$JS.API.CONSUMER.CREATE.{FLOW}.{self._name}",
            {"stream_name": FLOW, "config": config},
            timeout=_PATIENCE,
        )

    async def _info(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._bus.request_json(f"$JS.API.CONSUMER.INFO.{FLOW}.{name}", timeout=_PATIENCE)
        except ApiError as error:
            if error.code == CONSUMER_NOT_FOUND:
                return None
            raise

    def _agents(self) -> set[str]:
        agents: set[str] = set()
        for template in self._catalog.all():
            agents |= template.started_by | {step.agent for step in template.steps.values()}
        return agents


def crowds(agent: str, durable: str) -> str:
    """What to tell people about an agent that crowds a durable."""
    return (
        f"most messages that wait for {durable} are agent {agent}'s, and more than the coordinators can follow. "
        f"Others' pass by. If it should not send that many, stop it: {how_to_stop(agent)}"
    )


def _both(first: Note, second: Note) -> Note:
    def note(delivery: Delivery) -> None:
        first(delivery)
        second(delivery)

    return note


def _counting(crowd: Crowd) -> Note:
    return lambda delivery: crowd.add(agent_of(delivery.subject), delivery.pending)


def filters_beside(durable: str, agents: Iterable[str]) -> set[str]:
    """The subjects that a durable delivers, of these agents and of the coordinator alone."""
    found = set()
    for subject in coordinator_filters()[durable]:
        if COORDINATOR in subject:
            found.add(subject)
        else:
            found |= {f"{subject.removesuffix('>')}{agent}.>" for agent in (*agents, COORDINATOR)}
    return found


def _config(name: str, subjects: Iterable[str], *, after: int) -> dict[str, Any]:
    return {
        "name": name,
        # The broker keeps a consumer without this on one server only, if `num_replicas` is 0.
        "durable_name": name,
        "filter_subjects": sorted(subjects),
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": after + 1,
        "ack_policy": "explicit",
        "ack_wait": int(ACK_WAIT.total_seconds() * 1e9),
        "max_deliver": -1,
        "max_ack_pending": -1,
        "max_waiting": 4096,
        "mem_storage": True,
        "num_replicas": 0,  # as many as the stream
        "inactive_threshold": int(_INACTIVE.total_seconds() * 1e9),
    }
