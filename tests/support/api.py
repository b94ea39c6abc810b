"""A coordinator with its gRPC API for tests: real server, real channels, tokens, grpcurl."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from handrail.coordinator.api.dev_tokens import KeyFiles, ensure_keys, mint
from handrail.coordinator.api.server import Server, ServerSettings
from handrail.coordinator.reconcile.replica import Replica
from handrail.mesh.bus import NatsBus
from tests.support.coordinator import running
from tests.support.waiting import PATIENCE

GRPCURL = Path(sys.executable).with_name("grpcurl")

EOF: object = grpc.aio.EOF  # type: ignore[attr-defined]
"""The value that reading from a stream returns at its end."""


@dataclass(frozen=True)
class Refusal:
    """A refused call, as the caller saw it."""

    code: grpc.StatusCode
    status: Status

    def detail(self, message_class: type[Any]) -> Any:
        """The only detail of this class. Raises AssertionError unless there is exactly one."""
        name = message_class.DESCRIPTOR.full_name
        found = [detail for detail in self.status.details if detail.TypeName() == name]
        assert len(found) == 1, f"{len(found)} details {name} in {self.status}"
        return message_class.FromString(found[0].value)

    @property
    def info(self) -> error_details_pb2.ErrorInfo:
        """The ErrorInfo that every refusal has."""
        info = self.detail(error_details_pb2.ErrorInfo)
        assert isinstance(info, error_details_pb2.ErrorInfo)
        assert info.domain == "handrail"
        return info

    @property
    def reason(self) -> str:
        """The reason, without prefix."""
        return self.info.reason


@dataclass(frozen=True)
class Ran:
    """The output of grpcurl, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class Api:
    """A running coordinator, and helpers to call it."""

    replica: Replica
    server: Server
    address: str
    keys: KeyFiles
    channel: grpc.aio.Channel

    def token(
        self,
        subject: str,
        *roles: str,
        grants: Sequence[str] | None = None,
        agent: str = "",
        lifetime: timedelta = timedelta(hours=1),
    ) -> str:
        """A valid token."""
        return mint(self.keys.private, subject, roles=roles, grants=grants, agent=agent, lifetime=lifetime)

    def call(self, method: str, request: Any, answer: type[Any], **options: Any) -> Any:
        """Call `Service/Method` of handrail.v1; awaitable."""
        rpc = self.channel.unary_unary(
            f"/handrail.v1.{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        return rpc(request, **options)

    async def grpcurl(self, *arguments: str, token: str = "", data: Any = None) -> Ran:
        """Runs grpcurl; `data` goes to its standard input as JSON."""
        header = ["-H", f"authorization: Bearer {token}"] if token else []
        given = ["-d", "@"] if data is not None else []
        process = await asyncio.create_subprocess_exec(
            str(GRPCURL), "-plaintext", "-max-time", "20", *header, *given, self.address, *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await process.communicate(json.dumps(data).encode() if data is not None else b"")
        return Ran(process.returncode or 0, out.decode(), err.decode())


def bearer(token: str) -> Sequence[tuple[str, str]]:
    """A token as call metadata."""
    return (("authorization", f"Bearer {token}"),)


async def refused(call: Any) -> Refusal:
    """The refusal of a call. Raises AssertionError if the call succeeds."""
    try:
        answer = await call
    except grpc.aio.AioRpcError as error:
        status = rpc_status.from_call(error)  # type: ignore[arg-type]
        return Refusal(error.code(), status or Status())
    raise AssertionError(f"not refused: {answer}")


@asynccontextmanager
async def running_api(
    bus: NatsBus,
    folder: Path,
    *,
    more_keys: tuple[Path, ...] = (),
    holder: str = "test",
    replicas: int = 1,
    decides: bool = True,
    **settings: Any,
) -> AsyncIterator[Api]:
    """Runs a coordinator on `bus` while the block runs. It serves and, unless told otherwise, decides.

    Several coordinators need a `holder` each, and may share `folder`, which has the keys. `replicas` are those of the
    streams.
    """
    keys = ensure_keys(folder / "keys")
    replica = Replica(bus, holder=holder, lease_ttl=timedelta(seconds=2))
    await replica.prepare(replicas=replicas)
    # No call that a test makes without a deadline ends because the machine is busy.
    wanted = {"default_deadline": timedelta(seconds=PATIENCE), **settings}
    server = Server(replica, ServerSettings(address="127.0.0.1:0", public_keys=(keys.public, *more_keys), **wanted))
    port = await server.start()
    await server.set_serving(True)
    async with running(replica) if decides else nullcontext():
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield Api(replica, server, f"127.0.0.1:{port}", keys, channel)
        finally:
            await server.drain()
