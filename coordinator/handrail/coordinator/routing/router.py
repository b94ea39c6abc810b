"""Hands deliveries to the owners of their flows, over core NATS, and takes those that others hand over.

    own.members                                     a replica says that it is there: `+<replica>`, or goes: `-<replica>`
    own.<owner>.<from>.<durable>                    a delivery: its ack subject and its own subject, then its body
    own.<from>.<owner>.room                         how many deliveries the owner is done with, as digits

The ack subject is in the body: the broker lets nobody name one as the reply subject of a message.

The owner acknowledges what it was handed: the broker takes an ack from any connection of the account. Until the owner
says that it has room, a delivery counts as in progress where it came from, so nobody is handed more than it can hold.
"""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import timedelta

from handrail.coordinator.routing.members import Members
from handrail.coordinator.routing.owners import owner
from handrail.mesh.bus import Delivery, NatsBus
from handrail.mesh.bus.delivery import place
from handrail.mesh.bus.protocol import Message
from handrail.mesh.errors import BrokerPermission
from handrail.mesh.printable import clean
from handrail.mesh.streams.durables import ACK_WAIT
from handrail.mesh.waiting import pause

log = logging.getLogger(__name__)

_PREFIX = "own"
_MEMBERS = f"{_PREFIX}.members"
_ROOM = "room"
_LONGEST_COUNT = 9
"""Digits."""

_MEMBER = re.compile("[0-9a-f]{16}")

BEAT = 1.0
"""Seconds between two signs of life."""

_SOON = timedelta(milliseconds=25)
"""How often owners tell that they have room."""

_FAREWELL = timedelta(seconds=3)
"""How long a replica that says that it goes may take to finish what it was handed."""

_LATER = timedelta(seconds=BEAT)
"""How often a replica looks around that is alone."""

Take = Callable[[str, Delivery], None]
"""Takes a delivery of a flow that this replica owns, and the name of the durable. It must be quick."""


class Router:
    """Routes the deliveries of one replica. `on_change` is called when a replica comes or goes."""

    def __init__(self, bus: NatsBus, *, on_change: Callable[[], None]) -> None:
        self._bus = bus
        self._on_change = on_change
        self._members = Members(secrets.token_hex(8))
        self._takers: dict[str, tuple[str, Take]] = {}
        self._away: defaultdict[str, deque[tuple[float, Delivery]]] = defaultdict(deque)
        self._room: Counter[str] = Counter()
        self._leaving = False

    @property
    def members(self) -> tuple[str, ...]:
        """The live replicas, this one included."""
        return self._members.all

    @property
    def away(self) -> int:
        """How many deliveries other replicas have from this one and are not done with."""
        return sum(map(len, self._away.values()))

    def receive(self, stream: str, durable: str, take: Take) -> None:
        """Passes deliveries of this durable, which others hand over, to `take`."""
        self._takers[durable] = (stream, take)

    def hands_over(self, durable: str, flow_id: str, delivery: Delivery) -> bool:
        """Hands a delivery to the owner of its flow. Returns False if this replica keeps it."""
        members = self._members.all
        if len(members) == 1 or self._leaving:
            return False
        to = owner(flow_id, members)
        if to == self._members.own:
            return False
        body = b"%b\n%b\n%b" % (delivery.reply.encode(), delivery.subject.encode(), delivery.body)
        if len(body) > self._bus.connection.client.max_payload:
            return False
        self._bus.connection.send(f"{_PREFIX}.{to}.{self._members.own}.{durable}", body)
        self._away[to].append((asyncio.get_running_loop().time(), delivery))
        return True

    async def run(self, stopping: asyncio.Event) -> None:
        """Takes part until `stopping` is set; then the others own this replica's flows.

        Without the permission for it, this replica keeps what it is handed, and says so once. Raises BrokerUnavailable.
        """
        self._leaving = False
        async with AsyncExitStack() as listening:
            # First what others hand over, then who they are: whoever hears of this replica can reach it.
            subjects = ((f"{_PREFIX}.{self._members.own}.>", self._on_message), (_MEMBERS, self._on_member))
            try:
                for subject, on_message in subjects:
                    subscription = await self._bus.subscribe(subject, on_message)
                    listening.push_async_callback(subscription.drain)
            except BrokerPermission as error:
                log.warning("this replica can't share flows with others, and reads more than it needs: %s", error.text)
                await stopping.wait()
                return
            try:
                await self._keep(stopping)
            finally:
                self._leaving = True
                self._say("-")
        self._tell_room()

    async def _keep(self, stopping: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        beaten = -BEAT
        while not stopping.is_set():
            now = loop.time()
            if now - beaten >= BEAT:
                beaten = now
                self._say("+")
                self._expire(now)
            self._tell_room()
            await pause(stopping, _SOON if len(self._members.all) > 1 else _LATER)

    def _say(self, what: str) -> None:
        self._bus.connection.send(_MEMBERS, f"{what}{self._members.own}".encode())

    def _expire(self, now: float) -> None:
        for member in self._members.expire(now):
            self._lost(member, timedelta())
        for away in self._away.values():
            while away and now - away[0][0] > ACK_WAIT.total_seconds():
                away.popleft()[1].make_room()

    def _on_member(self, message: Message) -> None:
        said, member = message.data[:1], message.data[1:].decode(errors="replace")
        if not _MEMBER.fullmatch(member):
            return
        if said == b"+" and self._members.hear(member, asyncio.get_running_loop().time()):
            log.info("replica %s shares the flows from now on", member)
            self._say("+")
            self._on_change()
        elif said == b"-" and self._members.lose(member):
            self._lost(member, _FAREWELL)

    def _lost(self, member: str, delay: timedelta) -> None:
        """Has what that replica was handed delivered again after `delay`, unless it acknowledges it before."""
        log.info("replica %s is gone: the others share its flows", member)
        for _, delivery in self._away.pop(member, ()):
            delivery.nak(delay)
        self._on_change()

    def _on_message(self, message: Message) -> None:
        _, _, sender, what, *_ = (*message.subject.split("."), "", "")
        if what == _ROOM:
            self._on_room(sender, message.data)
            return
        reply, _, rest = message.data.partition(b"\n")
        subject, _, body = rest.partition(b"\n")
        stream, take = self._takers.get(what, ("", None))
        handed = Message(subject.decode(errors="replace"), reply.decode(errors="replace"), body)
        found = place(handed.reply)
        if found is None or take is None or (found.stream, found.durable) != (stream, what) or not subject:
            log.warning("something that is no delivery was handed over on %s", clean(message.subject[:200]))
            return
        take(what, Delivery(_Handed(self, sender), handed, found))

    def _on_room(self, sender: str, count: bytes) -> None:
        away = self._away.get(sender)
        if away is None or not count.isdigit() or len(count) > _LONGEST_COUNT:
            return
        for _ in range(min(int(count), len(away))):
            away.popleft()[1].make_room()

    def _tell_room(self) -> None:
        room, self._room = self._room, Counter()
        for sender, count in room.items():
            self._bus.connection.send(f"{_PREFIX}.{sender}.{self._members.own}.{_ROOM}", str(count).encode())

    def settle(self, reply: str, body: bytes) -> None:
        """Sends the answer to a delivery that was handed over."""
        self._bus.connection.send(reply, body)

    def done_with(self, sender: str) -> None:
        """This replica has room for another delivery of that sender."""
        self._room[sender] += 1


class _Handed:
    """Receives the answers to deliveries that one replica handed over."""

    def __init__(self, router: Router, sender: str) -> None:
        self._router = router
        self._sender = sender

    def reply(self, reply: str, body: bytes) -> None:
        self._router.settle(reply, body)

    def settled(self) -> None:
        self._router.done_with(self._sender)
