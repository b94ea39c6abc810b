"""The index of flows, as visibility serves it.

Questions are bounded in number and time: a visibility that is slow, or gone, takes nothing from calls that don't need
it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from weakref import WeakValueDictionary

import grpc
import grpc.aio
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_status import rpc_status

from handrail.index.v1.index_service_pb2_grpc import IndexServiceStub
from handrail.mesh.errors import HandrailError
from handrail.mesh.printable import clean
from handrail.mesh.reread_file import Unreadable
from handrail.mesh.setting_parsers import is_loopback
from handrail.mesh.shared_secret import SharedSecret
from handrail.v1.error_reason_pb2 import ErrorReason

if TYPE_CHECKING:
    from handrail.index.v1.index_service_pb2_grpc import IndexServiceAsyncStub

log = logging.getLogger(__name__)

AT_ONCE = 32
"""The most questions in progress; more are refused at once."""

EACH = 2
"""The most of them that one caller asks; others of that caller wait. That is less than visibility works on at once, but
several coordinators together may ask more for one caller."""

LONGEST = timedelta(seconds=4)
"""How long a question may take."""

INSTEAD = "a request with scan, or --scan, reads the stream instead, slowly"
"""What a caller can do without an index."""

_TOLD = {
    "BAD_FILTER": ErrorReason.ERROR_REASON_BAD_FILTER,
    "BAD_PAGE_TOKEN": ErrorReason.ERROR_REASON_BAD_PAGE_TOKEN,
    "ARCHIVE_DAMAGED": ErrorReason.ERROR_REASON_ARCHIVE_DAMAGED,
    "DEADLINE_EXCEEDED": ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
}
"""What visibility says to a caller; everything else is between it and the coordinator."""

_OPTIONS = (
    # A proxy of the environment would get the secret.
    ("grpc.enable_http_proxy", 0),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 32 << 20),
)

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexSettings:
    """Where visibility serves the index, the file with the secret, and the authority of its certificate.

    Without an authority, it is one of the public ones; on this machine, there is no TLS then.
    """

    address: str
    secret: Path
    authority: Path | None = None


class Index:
    """Asks the index. Without settings there is none."""

    def __init__(self, settings: IndexSettings | None, caller: Callable[[], str] = lambda: "") -> None:
        """Connects with the first question; `caller` names whose it is. Raises ValueError if the authority can't be
        read.
        """
        self._settings = settings
        self._caller = caller
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._in_progress = 0
        self._channel: grpc.aio.Channel | None = None
        self._secret = None if settings is None else SharedSecret(settings.secret)
        self._credentials = None if settings is None else _credentials(settings)

    @property
    def is_there(self) -> bool:
        """Whether there is an index to ask, whatever it answers."""
        return self._settings is not None

    @property
    def questions(self) -> IndexServiceAsyncStub:
        """The methods to pass to `ask`. Raises NO_INDEX if there is no index."""
        if self._settings is None:
            raise HandrailError(
                ErrorReason.ERROR_REASON_NO_INDEX,
                f"this coordinator has no visibility to read lists from (--visibility); {INSTEAD}",
            )
        if self._channel is None:
            address, credentials = self._settings.address, self._credentials
            if credentials is None:
                self._channel = grpc.aio.insecure_channel(address, _OPTIONS)
            else:
                self._channel = grpc.aio.secure_channel(address, credentials, _OPTIONS)
        return IndexServiceStub(self._channel)

    async def ask(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer],
        request: Request,
        patience: timedelta = LONGEST,
    ) -> Answer:
        """Returns the answer to one of the `questions`, which may take `patience`.

        Raises INDEX_UNAVAILABLE if visibility can't answer, DEADLINE_EXCEEDED if it has to look at too many flows,
        LIMIT_EXCEEDED if the caller's other questions take as long, BAD_FILTER, BAD_PAGE_TOKEN and ARCHIVE_DAMAGED.
        """
        ends_at = time.monotonic() + patience.total_seconds()
        turn = self._turns.setdefault(self._caller(), asyncio.Semaphore(EACH))
        try:
            await asyncio.wait_for(turn.acquire(), patience.total_seconds())
        except TimeoutError:
            text = f"{EACH} other questions of yours to visibility are in progress: end one, or ask again"
            raise HandrailError(ErrorReason.ERROR_REASON_LIMIT_EXCEEDED, text) from None
        try:
            return await self._ask(method, request, timedelta(seconds=ends_at - time.monotonic()))
        finally:
            turn.release()

    async def _ask(
        self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Answer], request: Request, patience: timedelta
    ) -> Answer:
        if self._in_progress >= AT_ONCE:
            raise unavailable(f"{AT_ONCE} questions to visibility are in progress: it is too slow")
        self._in_progress += 1
        try:
            return await method(request, timeout=patience.total_seconds(), metadata=self._metadata())
        except grpc.aio.AioRpcError as error:
            raise _explained(error, patience) from None
        finally:
            self._in_progress -= 1

    async def close(self) -> None:
        """Ends the connection."""
        if self._channel is not None:
            await self._channel.close(None)
            self._channel = None

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        try:
            return () if self._secret is None else self._secret.metadata()
        except Unreadable:
            raise unavailable("the coordinator can't read the secret that it shares with visibility") from None


class Unavailable(HandrailError):
    """The index can't be asked: `why`, and what a list can do instead."""

    def __init__(self, why: str) -> None:
        super().__init__(ErrorReason.ERROR_REASON_INDEX_UNAVAILABLE, f"{why}; {INSTEAD}")
        self.why = why


def unavailable(why: str) -> Unavailable:
    """Returns the error for an index that can't be asked."""
    return Unavailable(why)


def _explained(error: grpc.aio.AioRpcError, patience: timedelta) -> HandrailError:
    said, text = _info(error), clean(error.details() or "")
    if said.reason in _TOLD:
        return HandrailError(_TOLD[said.reason], text, **{key: clean(value) for key, value in said.metadata.items()})
    log.warning("visibility does not answer: %s: %s", error.code().name, text)
    if said.reason == "INDEX_UNAVAILABLE":
        return unavailable(text)
    match error.code():
        case grpc.StatusCode.UNAUTHENTICATED:
            return unavailable("visibility does not take the coordinator's secret: both need the same one")
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return unavailable(f"visibility did not answer within {patience.total_seconds():.1f} s")
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            return unavailable("visibility has too many questions to answer")
        case grpc.StatusCode.UNAVAILABLE:
            return unavailable("visibility can't be reached")
    return unavailable("visibility failed to answer; its log says why")


def _info(error: grpc.aio.AioRpcError) -> ErrorInfo:
    status: Status | None = rpc_status.from_call(error)  # type: ignore[arg-type]  # an error has what it needs of a call
    for detail in () if status is None else status.details:
        if detail.Is(ErrorInfo.DESCRIPTOR):
            return ErrorInfo.FromString(detail.value)
    return ErrorInfo()


def _credentials(settings: IndexSettings) -> grpc.ChannelCredentials | None:
    if settings.authority is None:
        return None if is_loopback(settings.address) else grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(settings.authority.read_bytes())
    except OSError as error:
        raise ValueError(f"{settings.authority} can't be read: {error.strerror}") from None
