"""The price of one message on the bus: microseconds of this process's CPU (user and system) for each operation.

`python -m bench.wire [--rounds 5] [--messages 5000]` starts a nats-server of its own and prints medians of the rounds.
To compare two states of the code, run it in both by turns: a machine's speed drifts.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvloop

from handrail.mesh.bus import BusSettings, Delivery, NatsBus
from handrail.mesh.errors import HandrailError
from tests.support.nats_server import running_server

STREAM = "WIRE"
IN_FLIGHT = 100
"""Publishes, reads and pulled messages at once."""

BODY = b"x" * 200
FLOW_SIZE = 10
"""Messages of one flow, which one read returns."""

Measure = Callable[[NatsBus, int], Awaitable[float]]


class Subjects:
    """Subjects that were not used before: `wire.<flow>.<nth of the flow>`."""

    def __init__(self) -> None:
        self._used = 0

    def next(self) -> str:
        """The next one."""
        self._used += 1
        return f"wire.flow{self._used // FLOW_SIZE:032}.event.{self._used % FLOW_SIZE}"


_subjects = Subjects()


async def publish_nowait(bus: NatsBus, messages: int) -> float:
    """Publishes with a callback; each answer starts the next."""
    done = asyncio.Event()
    left, unanswered = messages, messages

    def begin() -> None:
        nonlocal left
        left -= 1
        bus.publish_nowait(_subjects.next(), BODY, on_stored)

    def on_stored(outcome: int | HandrailError) -> None:
        nonlocal unanswered
        if isinstance(outcome, HandrailError):
            raise outcome
        unanswered -= 1
        if left:
            begin()
        elif not unanswered:
            done.set()

    before = time.process_time()
    for _ in range(min(IN_FLIGHT, messages)):
        begin()
    await done.wait()
    return time.process_time() - before


async def publish(bus: NatsBus, messages: int) -> float:
    """Publishes and waits for each answer, in so many tasks."""
    left = messages

    async def one_after_the_other() -> None:
        nonlocal left
        while left:
            left -= 1
            await bus.publish(_subjects.next(), BODY)

    return await _cpu(one_after_the_other)


async def append(bus: NatsBus, messages: int) -> float:
    """Publishes as the coordinator appends decisions: with an expectation, which takes two headers."""
    left = messages

    async def one_after_the_other() -> None:
        nonlocal left
        while left:
            left -= 1
            subject = _subjects.next()
            await bus.publish(subject, BODY, expected_sequence=0, expected_filter=f"{subject}.>")

    return await _cpu(one_after_the_other)


async def pull(bus: NatsBus, messages: int) -> float:
    """Pulls from a new durable, and acknowledges."""
    await bus.request_json(
        f"$JS.API.CONSUMER.CREATE.{STREAM}.all",
        {"stream_name": STREAM, "config": {"durable_name": "all", "ack_policy": "explicit", "max_ack_pending": 10_000}},
    )
    done = asyncio.Event()
    left = messages

    def on_delivery(delivery: Delivery) -> None:
        nonlocal left
        delivery.ack()
        left -= 1
        if left == 0:
            done.set()

    before = time.process_time()
    pulled = await bus.pull(STREAM, "all", in_flight=5 * IN_FLIGHT, on_delivery=on_delivery)
    await done.wait()
    taken = time.process_time() - before
    await pulled.stop()
    await bus.request_json(f"$JS.API.CONSUMER.DELETE.{STREAM}.all")
    return taken


def read_one(at_once: int) -> Measure:
    """Reads single messages by their sequence."""

    async def measure(bus: NatsBus, messages: int) -> float:
        left = messages

        async def one_after_the_other() -> None:
            nonlocal left
            while left:
                left -= 1
                assert await bus.by_sequence(STREAM, 1 + left % FLOW_SIZE) is not None

        return await _cpu(one_after_the_other, at_once)

    return measure


def read_flow(at_once: int) -> Measure:
    """Reads whole flows."""

    async def measure(bus: NatsBus, messages: int) -> float:
        left = messages

        async def one_after_the_other() -> None:
            nonlocal left
            while left:
                left -= 1
                page = await bus.direct_get(STREAM, multi_last=[f"wire.flow{1 + left % 100:032}.>"])
                assert len(page.messages) == FLOW_SIZE

        return await _cpu(one_after_the_other, at_once)

    return measure


MEASURES: dict[str, Measure] = {
    f"publish_nowait, {IN_FLIGHT} at once": publish_nowait,
    f"publish, {IN_FLIGHT} at once": publish,
    f"publish, expecting, {IN_FLIGHT} at once": append,
    f"pull and ack, {5 * IN_FLIGHT} in flight": pull,
    "direct get of 1, one at a time": read_one(1),
    "direct get of 1, 16 at once": read_one(16),
    f"direct get of {FLOW_SIZE}, one at a time": read_flow(1),
    f"direct get of {FLOW_SIZE}, 16 at once": read_flow(16),
}


async def _cpu(work: Callable[[], Awaitable[None]], at_once: int = IN_FLIGHT) -> float:
    before = time.process_time()
    await asyncio.gather(*(work() for _ in range(at_once)))
    return time.process_time() - before


async def measure(url: str, rounds: int, messages: int) -> dict[str, float]:
    """Microseconds of CPU for each operation, medians of the rounds."""
    taken: dict[str, list[float]] = {name: [] for name in MEASURES}
    async with await NatsBus.connect(BusSettings(servers=(url,), name="bench")) as bus:
        await bus.request_json(
            f"$JS.API.STREAM.CREATE.{STREAM}",
            {"name": STREAM, "subjects": ["wire.>"], "storage": "memory", "allow_direct": True},
        )
        await publish_nowait(bus, messages)
        for _ in range(rounds):
            for name, each in MEASURES.items():
                taken[name].append(await each(bus, messages) / messages * 1e6)
    return {name: statistics.median(each) for name, each in taken.items()}


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=5000, help="operations of each kind in a round")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, running_server(Path(folder)) as server:
        for name, micros in uvloop.run(measure(server.url, options.rounds, options.messages)).items():
            print(f"{name:<36}{micros:>8.1f} µs", flush=True)


if __name__ == "__main__":
    main()
