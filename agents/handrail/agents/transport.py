"""What an error of an outgoing call says about its effect: that it did not happen, or that it may have.

It knows errors of httpx, requests, urllib3 and the standard library by their class names, so no library has to be
installed. An error that can mean both counts as "may have happened": that costs a check, the opposite costs money.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from enum import Enum, auto


class Sent(Enum):
    """What happened to the request."""

    NO = auto()
    """It was not sent: its effect did not happen."""
    PERHAPS = auto()
    """It may have been received: whether its effect happened is unknown."""


_NOT_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"),
        *("ConnectTimeoutError", "NewConnectionError", "NameResolutionError"),
    }
)
"""Classes of httpx and requests, and of urllib3 below it, for requests that found no connection."""

_PERHAPS_SENT = {
    # The bases of all errors of a request in progress. Errors in the request itself have other bases.
    "httpx": frozenset({"TransportError", "DecodingError", "TooManyRedirects"}),
    "requests": frozenset(
        {
            *("ConnectionError", "Timeout", "ChunkedEncodingError", "ContentDecodingError", "JSONDecodeError"),
            *("TooManyRedirects", "RetryError"),
        }
    ),
    "urllib3": frozenset({"TimeoutError", "ProtocolError", "MaxRetryError", "SSLError", "DecodeError"}),
}

_BARRED = (ConnectionRefusedError, socket.gaierror, ssl.SSLCertVerificationError)
_BROKEN_OFF = (
    *(TimeoutError, ConnectionResetError, ConnectionAbortedError, BrokenPipeError, http.client.HTTPException),
    urllib.error.URLError,
)
_SERVER_ERROR = 500
_STATUS_ERRORS = {"httpx": "HTTPStatusError", "requests": "HTTPError"}


def sent(error: BaseException) -> Sent | None:
    """Tells whether the request behind an error was sent; None if the error is not about a request."""
    if isinstance(error, urllib.error.HTTPError):
        return Sent.PERHAPS if error.code >= _SERVER_ERROR else None
    if not isinstance(error, (*_BARRED, *_BROKEN_OFF)) and not _is_of(error, _PERHAPS_SENT):
        return Sent.PERHAPS if _status(error) >= _SERVER_ERROR else None
    return Sent.NO if any(map(_found_no_connection, _chain(error))) else Sent.PERHAPS


def _found_no_connection(error: BaseException) -> bool:
    of_library = any(_library(base) in _PERHAPS_SENT and base.__name__ in _NOT_SENT for base in type(error).__mro__)
    return of_library or isinstance(error, _BARRED)


def _is_of(error: BaseException, names: dict[str, frozenset[str]]) -> bool:
    return any(base.__name__ in names.get(_library(base), ()) for base in type(error).__mro__)


def _library(base: type) -> str:
    return base.__module__.partition(".")[0]


def _status(error: BaseException) -> int:
    """Returns the status of a response that was raised as an error; 0 for anything else."""
    if not any(_STATUS_ERRORS.get(_library(base)) == base.__name__ for base in type(error).__mro__):
        return 0
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an error and its causes: requests and urllib wrap lower-level errors."""
    seen: list[BaseException] = []
    left = [error]
    while left and len(seen) < 16:
        one = left.pop()
        if any(one is each for each in seen):
            continue
        seen.append(one)
        below = (*one.args, getattr(one, "reason", None), one.__cause__)
        left += [each for each in below if isinstance(each, BaseException)]
    return iter(seen)
