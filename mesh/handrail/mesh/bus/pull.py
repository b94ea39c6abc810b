"""Consumes a durable with pull requests of its own, without a task or a future per message.

Several requests overlap, so that one is always open at the broker. Requested and unsettled messages together never
exceed `in_flight`: a slow consumer never receives more than it can hold. New requests follow a reconnect, the expiry
of a request, and the end of the broker's heartbeat (which means that the consumer's leader has moved).
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Callable
from datetime import timedelta

import nats.errors
from nats.aio.subscription import Subscription

from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.delivery import Delivery, place
from handrail.mesh.bus.protocol import Message, description, parse_headers, status
from handrail.mesh.bus.reply_inbox import NO_RESPONDERS
from handrail.mesh.errors import BrokerUnavailable, HandrailError

_logger = logging.getLogger(__name__)

_EXPIRES = 5.0
_HEARTBEAT = 1.0
_SILENCE = 3.5
"""Seconds: the lifetime of a request, the broker's heartbeat while idle, and how long a heartbeat may be missing."""
_GRACE = 2.0
_ALONE = 600.0
"""Seconds for which each request asks for one message only, after an empty message."""
_TICK = 0.5
_RETRY = 0.5
_HEARTBEAT_STATUS = "100"
_EXPIRED_STATUS = "408"


class Pull:
    """Consumes a durable. `start` it once; `stop` hands back messages that are not processed yet.

    `requests_made` and `moves` (to another inbox) are counters.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        stream: str,
        durable: str,
        in_flight: int,
        on_delivery: Callable[[Delivery], None],
        on_problem: Callable[[HandrailError], None] | None = None,
    ) -> None:
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{durable}"
        self._durable = (stream, durable)
        self._name = f"{stream}/{durable}"
        self._in_flight = in_flight
        self._on_delivery = on_delivery
        self._on_problem = on_problem
        self._batch_floor = max(1, in_flight // 4)
        self._inbox = connection.inbox.new_prefix()
        self._requests: deque[float] = deque()
        self._requested = 0
        # The broker serves requests in turn, oldest first. If all workers kept the same rhythm, the same worker would
        # be first after each quiet time, and would always get the message that it alone can't handle.
        self._expires = _EXPIRES * random.uniform(0.6, 1.0)
        self._unsettled = 0
        self.requests_made = 0
        self.moves = 0
        self._heard_at = 0.0
        self._wait_until = 0.0
        self._problem = ""
        self._stopping = False
        self._subscription: Subscription | None = None
        self._ticking: asyncio.TimerHandle | None = None
        self._refusals = ""
        self._moving: asyncio.Task[None] | None = None
        self._alone_until = 0.0
        self._asked_for_many = False

    async def start(self) -> None:
        """Subscribes and makes the first requests."""
        self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        self._connection.on_reconnected.append(self._ask_anew)
        self._refusals = self._connection.inbox.expect(self)
        self._heard_at = self._loop.time()
        self._tick()

    async def stop(self) -> None:
        """Stops requesting. Messages not yet passed to `on_delivery` go back to the broker; the receiver still has to
        settle the others.
        """
        if self._stopping:
            return
        self._stopping = True
        if self._ticking is not None:
            self._ticking.cancel()
        self._connection.on_reconnected.remove(self._ask_anew)
        self._connection.inbox.forget(self._refusals)
        if self._moving is not None:
            await self._moving
        if self._subscription is None or not self._connection.client.is_connected:
            return
        if self._outlives_us:
            await asyncio.sleep(self._open_for())
        await self._subscription.drain()  # type: ignore[no-untyped-call]

    @property
    def _outlives_us(self) -> bool:
        """Whether the broker may serve our open requests after we are gone.

        A consumer's leader notices at once that nobody listens any more, but not across servers, where the stream is in
        another account. Messages that it delivers then are lost until the durable's ack wait is over.
        """
        return len(self._connection.client.servers) > 1

    def _open_for(self) -> float:
        """Seconds until the last open request expires at the broker."""
        return max(0.0, self._requests[-1] - _GRACE - self._loop.time()) + _TICK if self._requests else 0.0

    @property
    def problem(self) -> str:
        """Why the broker does not serve our requests, as text for people; empty while it does."""
        return self._problem

    @property
    def unsettled(self) -> int:
        """The number of deliveries that are not settled yet."""
        return self._unsettled

    def reply(self, reply: str, body: bytes) -> None:
        """Sends the answer to a delivery."""
        self._connection.send(reply, body)

    def settled(self) -> None:
        """A delivery was settled, which makes room for another."""
        self._unsettled -= 1
        self._ask()

    def answered(self, message: Message) -> None:
        """Unused: deliveries arrive in an inbox of their own."""

    def refused(self, error: HandrailError) -> None:
        """The broker refuses our requests: retries, in case its permissions change."""
        self._refusals = self._connection.inbox.expect(self)
        self._requested = 0
        self._requests.clear()
        self._back_off(error)

    def _on_message(self, message: Message) -> None:
        self._heard_at = self._loop.time()
        if message.reply:
            handed_out = place(message.reply)
            if handed_out is None or (handed_out.stream, handed_out.durable) != self._durable:
                return  # the delivery is of another durable: somebody redirected it here
            if self._requested:
                self._requested -= 1
            self._unsettled += 1
            delivery = Delivery(self, message, handed_out)
            if self._stopping:
                # With the delay, the broker does not deliver it to another open request of ours.
                delivery.nak(timedelta(seconds=self._open_for()) if self._outlives_us else None)
                return
            if not message.data and not message.block:
                self._beware()
            self._problem = ""
            self._on_delivery(delivery)
            if not self._requested:
                self._ask()
        else:
            self._on_status(message)

    def _beware(self) -> None:
        """Asks for one message at a time, after an empty one.

        The stream is in another account. So the broker takes an empty message for the end of the answers to a request,
        and loses everything it delivers for that request afterwards. Handrail never sends empty messages; this bounds
        the damage of somebody else's. A request for one message has nothing to lose.
        """
        self._alone_until = self._loop.time() + _ALONE
        if self._asked_for_many and self._moving is None:
            self._asked_for_many = False
            self._moving = self._loop.create_task(self._move())

    async def _move(self) -> None:
        """Gives up all open requests and makes new ones from another inbox.

        Messages in transit at this moment are lost; they come again after their ack wait.
        """
        left, self._subscription = self._subscription, None
        self._inbox = self._connection.inbox.new_prefix()
        try:
            if left is not None:
                await left.drain()  # type: ignore[no-untyped-call]
            self._subscription = await self._connection.subscribe(f"{self._inbox}.*", self._on_message)
        except (HandrailError, nats.errors.Error) as error:
            _logger.warning("%s: could not move to another inbox: %s", self._name, error)
        self._moving = None
        self.moves += 1
        self._ask_anew()

    def _on_status(self, message: Message) -> None:
        if status(message) == _HEARTBEAT_STATUS:
            self._problem = ""
            return
        unserved = parse_headers(message.block).get("Nats-Pending-Messages")
        if unserved is not None:
            # A request ended: it expired, or the consumer's leader moved.
            self._requested = max(0, self._requested - int(unserved))
        else:
            self._requested = 0
            self._requests.clear()
        if status(message) == _EXPIRED_STATUS:
            self._ask()
        elif status(message) == NO_RESPONDERS:
            self._back_off(
                BrokerUnavailable(f"no answer for {self._name}: no such durable, or its leader is being elected")
            )
        else:
            why = description(message) or "the broker ended a request"
            self._back_off(BrokerUnavailable(f"{self._name}: {why}"))

    def _back_off(self, error: HandrailError) -> None:
        self._wait_until = self._loop.time() + _RETRY
        if error.text == self._problem:
            return
        self._problem = error.text
        _logger.warning("%s", error)
        if self._on_problem is not None:
            self._on_problem(error)

    def _ask(self) -> None:
        room = self._in_flight - self._requested - self._unsettled
        if (
            self._stopping
            or not self._connection.connected
            or room < (1 if self._requested == 0 else self._batch_floor)
        ):
            return
        now = self._loop.time()
        if now < self._wait_until:
            return
        alone = now < self._alone_until
        self._asked_for_many = self._asked_for_many or not alone
        for batch in [1] * room if alone else [room]:
            self.requests_made += 1
            self._requested += batch
            self._requests.append(now + self._expires + _GRACE)
            body = b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (batch, self._expires * 1e9, _HEARTBEAT * 1e9)
            self._connection.send(self.subject, body, reply=f"{self._inbox}.{self.requests_made}")

    def _ask_anew(self) -> None:
        self._requests.clear()
        self._requested = 0
        self._heard_at = self._loop.time()
        self._wait_until = 0.0
        self._ask()

    def _tick(self) -> None:
        now = self._loop.time()
        while self._requests and self._requests[0] < now:
            self._requests.popleft()
        if not self._requests:
            self._requested = 0
        if self._requested and now - self._heard_at > _SILENCE:
            self._ask_anew()
        else:
            self._ask()
        self._ticking = self._loop.call_later(_TICK, self._tick)
