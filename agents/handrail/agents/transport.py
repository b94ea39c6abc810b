"""What an error of a call to somewhere else says of its effect: that it did not happen, or that it may have.

Errors of httpx, requests, urllib3 and the standard library, told by the names of their classes: none of them has to be
installed. Where an error can mean both, it means that the effect may have happened: saying so costs a look, and not
saying so costs money.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import urllib.error
from collections.abc import Iterator
from enum import Enum, auto


class Sent(Enum):
    """What became of the request."""

    NO = auto()
    """It was not sent: its effect did not happen."""
    PERHAPS = auto()
    """It may have been received: nobody knows whether its effect happened."""


_NOT_SENT = frozenset(
    {
        *("ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "UnsupportedProtocol"),
        *("ConnectTimeoutError", "NewConnectionError", "NameResolutionError"),
    }
)
"""Classes of httpx and requests, and of urllib3 below it, for requests that found no connection."""

_PERHAPS_SENT = {
    # The bases of all that can happen to a request under way. What was wrong with the request itself is none of them.
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
    """Whether the request behind an error was sent; None where the error is no such thing."""
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
    """The status of a response that was raised as an error; 0 for anything else."""
    if not any(_STATUS_ERRORS.get(_library(base)) == base.__name__ for base in type(error).__mro__):
        return 0
    status = getattr(getattr(error, "response", None), "status_code", 0)
    return status if isinstance(status, int) else 0


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and those that it was made from: requests and urllib wrap what happened below them."""
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
