"""The JetStream API: requests and answers as JSON, errors with their code."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from handrail.mesh.bus.connection import Connection
from handrail.mesh.bus.direct_get import RawMessage, parse_time
from handrail.mesh.bus.protocol import status
from handrail.mesh.bus.reply_inbox import NO_RESPONDERS
from handrail.mesh.errors import BrokerUnavailable, HandrailError
from handrail.mesh.waiting import Patience
from handrail.v1.error_reason_pb2 import ErrorReason

API_TIMEOUT = timedelta(seconds=15)

STREAM_NOT_FOUND = 10059
STREAM_NAME_IN_USE = 10058
SUBJECTS_OVERLAP = 10065
CONSUMER_NOT_FOUND = 10014
CONSUMERS_OVERLAP = 10100
MESSAGE_NOT_FOUND = 10037

_TRANSIENT = (10005, 10008, 10009, 10015)
"""The cluster does not see enough of its servers yet, has no leader, or is busy."""

_SILENCE = timedelta(seconds=4)
_FIRST_WAIT = timedelta(seconds=0.1)
_LONGEST_WAIT = timedelta(seconds=1)
"""Pauses before a request is repeated, while there is no leader."""


class ApiError(HandrailError):
    """The broker refuses a request of the JetStream API; `code` is its `err_code`."""

    def __init__(self, subject: str, code: int, description: str) -> None:
        self.code = code
        self.description = description
        lost = code == STREAM_NOT_FOUND
        reason = ErrorReason.ERROR_REASON_STREAM_LOST if lost else ErrorReason.ERROR_REASON_INTERNAL
        super().__init__(reason, f"the broker refuses {subject}: {description} ({code})")


async def request_json(
    connection: Connection,
    subject: str,
    payload: Mapping[str, Any] | None = None,
    *,
    timeout: timedelta = API_TIMEOUT,
) -> dict[str, Any]:
    """Sends a request and returns the answer. Retries while the cluster elects a leader: the request may run twice.

    Raises ApiError if the broker refuses the request, BrokerPermission, and BrokerUnavailable after `timeout`.
    """
    body = json.dumps(payload).encode() if payload is not None else b""
    patience = Patience(timeout, first=_FIRST_WAIT, longest=_LONGEST_WAIT)
    problem = "no answer"
    while patience.left:
        try:
            message = await connection.request(subject, body, timeout=min(_SILENCE, patience.left))
        except BrokerUnavailable as unavailable:
            if connection.closed.is_set():
                raise
            problem = unavailable.text
            continue
        if status(message) == NO_RESPONDERS:
            problem = "JetStream is not enabled, or no leader is elected"
        else:
            answer: dict[str, Any] = json.loads(message.data)
            error = answer.get("error")
            if error is None:
                return answer
            code, description = int(error.get("err_code", 0)), str(error.get("description", ""))
            if code not in _TRANSIENT:
                raise ApiError(subject, code, description)
            problem = description
        if not await patience.wait():
            break
    raise BrokerUnavailable(f"{subject} gave up after {timeout.total_seconds():g} s: {problem}")


async def last_on_leader(
    connection: Connection, stream: str, subject_filter: str, *, timeout: timedelta = API_TIMEOUT
) -> RawMessage | None:
    """The newest message that matches, from the stream's leader: never stale, but costs more than a direct read."""
    return await _on_leader(connection, stream, {"last_by_subj": subject_filter}, timeout)


async def first_on_leader(
    connection: Connection, stream: str, subject_filter: str, *, from_sequence: int, timeout: timedelta = API_TIMEOUT
) -> RawMessage | None:
    """The first message that matches, from a sequence on, from the stream's leader."""
    return await _on_leader(connection, stream, {"next_by_subj": subject_filter, "seq": from_sequence}, timeout)


async def _on_leader(
    connection: Connection, stream: str, request: Mapping[str, Any], timeout: timedelta
) -> RawMessage | None:
    try:
        answer = await request_json(connection, f"$JS.API.STREAM.MSG.GET.{stream}", request, timeout=timeout)
    except ApiError as error:
        if error.code == MESSAGE_NOT_FOUND:
            return None
        raise
    message = answer["message"]
    return RawMessage(
        subject=message["subject"],
        body=base64.b64decode(message.get("data", "")),
        sequence=int(message["seq"]),
        time=parse_time(message["time"]),
        block=base64.b64decode(message.get("hdrs", "")),
    )
