"""The callers of the installation, and their answers: every call is a line of the history, however it ended."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import grpc
import grpc.aio

from handrail.cli.verify.acknowledged import OK, REFUSED, UNKNOWN, Call
from handrail.v1.approval_service_pb2_grpc import ApprovalServiceStub
from handrail.v1.flow_service_pb2_grpc import FlowServiceStub
from tests.chaos.history.site import Site
from tests.chaos.history.story import FLOW_TYPE

Answer = TypeVar("Answer")

Options = Mapping[str, Any]
"""The timeout and the caller of a call."""

CALL_TIMEOUT = 15.0
"""Seconds that a caller waits; an election takes up to nine."""

_NOT_DONE = frozenset(
    {
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.ABORTED,
    }
)


class History:
    """Lines of calls, in a file and in memory."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a")
        self.calls: list[Call] = []
        self.errors: Counter[str] = Counter()
        """Counts calls that were not acknowledged, by operation and code."""

    def add(self, call: Call) -> None:
        """Adds a call."""
        self.calls.append(call)
        self._file.write(f"{call.line()}\n")
        self._file.flush()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


class Door:
    """The services of one coordinator."""

    def __init__(self, address: str) -> None:
        # A failed channel reconnects soon: a killed process is back within a second.
        options = [("grpc.initial_reconnect_backoff_ms", 200), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.aio.insecure_channel(address, options=options)
        self.flows = FlowServiceStub(self._channel)
        self.approvals = ApprovalServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel."""
        await self._channel.close(None)


class Callers:
    """People with tokens who call any coordinator."""

    def __init__(self, site: Site, chance: random.Random) -> None:
        self._site = site
        self._chance = chance
        self.history = History(site.folder / "history.jsonl")
        self._doors: Sequence[Door] = ()
        self._tokens: dict[str, str] = {}

    async def __aenter__(self) -> Callers:
        self._doors = [Door(address) for address in self._site.addresses]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for door in self._doors:
            await door.close()
        self.history.close()

    def doors(self) -> Sequence[Door]:
        """All coordinators, in any order."""
        return self._chance.sample(list(self._doors), len(self._doors))

    async def ask(self, by: str, role: str, do: Callable[[Door, Options], Awaitable[Answer]]) -> Answer:
        """Makes a read-only call. Raises AioRpcError if it fails."""
        return await do(self.doors()[0], self._options(by, role))

    async def change(
        self,
        op: str,
        by: str,
        role: str,
        do: Callable[[Door, Options], Awaitable[Answer]],
        told: Callable[[Answer], Mapping[str, Any]] = lambda answer: {},
        *,
        door: Door | None = None,
        tries: int = 4,
        **about: str,
    ) -> Answer | None:
        """Makes a call that changes something, and repeats it if there is no answer. Returns None if it was refused or
        never answered. `told` selects the part of the answer that the history keeps.
        """
        for attempt in range(tries):
            began = time.time()

            def line(outcome: str, more: Mapping[str, Any], began: float = began) -> Call:
                kept: dict[str, Any] = {"op": op, "by": by, "flow_type": FLOW_TYPE, **about, **more}
                return Call(outcome=outcome, at=began, ended=time.time(), **kept)

            try:
                answer = await do(door or self.doors()[0], self._options(by, role))
            except grpc.aio.AioRpcError as error:
                code, refused = error.code(), error.code() in _NOT_DONE
                self.history.errors[f"{op} {code.name}"] += 1
                detail = {"detail": f"{code.name}: {error.details()}"[:300]}
                self.history.add(line(REFUSED if refused else UNKNOWN, detail))
                # The flow changed while the decision was being recorded: the caller may try again.
                if refused and code is not grpc.StatusCode.ABORTED:
                    return None
                await asyncio.sleep(0.3 * 2**attempt)
            else:
                self.history.add(line(OK, told(answer)))
                return answer
        return None

    def _options(self, by: str, role: str) -> Options:
        token = self._tokens.setdefault(by, self._site.token(by, role))
        return {"timeout": CALL_TIMEOUT, "metadata": (("authorization", f"Bearer {token}"),)}
