"""Tells an open page that its flow moved on: server-sent events, from WatchFlow with the person's token."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from handrail.console.coordinator import CallFailed
from handrail.console.web.console import Console, console_of, session_of
from handrail.console.web.sessions import Session
from handrail.v1.flow_service_pb2 import WatchFlowRequest, WatchFlowResponse

_MOST_STREAMS = 8
"""Of one session; the coordinator allows one caller 32."""

_ALIVE = ": still here\n\n"


async def live(request: Request) -> Response:
    """GET /live/{flow_id}?after=SEQUENCE."""
    session = session_of(request, by_person=False)
    after = request.query_params.get("after", "0")
    if session is None:
        return PlainTextResponse("Sign in again.", 401)
    if not (after.isascii() and after.isdigit() and len(after) < 19):
        return PlainTextResponse("`after` is not a sequence.", 400)
    if session.streams >= _MOST_STREAMS:
        return PlainTextResponse("Too many pages of this session follow flows. Close some.", 429)
    wanted = WatchFlowRequest(flow_id=request.path_params["flow_id"], after_sequence=int(after))
    return StreamingResponse(_lines(console_of(request), session, wanted), media_type="text/event-stream")


async def _lines(console: Console, session: Session, wanted: WatchFlowRequest) -> AsyncIterator[str]:
    session.streams += 1
    ended = asyncio.create_task(session.ended.wait())
    try:
        stream = console.coordinator.stream(console.coordinator.flows.WatchFlow, wanted, token=session.token)
        async with aclosing(stream) as messages:
            while True:
                following = asyncio.ensure_future(anext(messages, None))
                try:
                    await asyncio.wait((following, ended), return_when=asyncio.FIRST_COMPLETED)
                    message: WatchFlowResponse | None = following.result() if following.done() else None
                finally:
                    await _given_up(following)
                if message is None:
                    break
                yield f"event: moved\ndata: {message.sequence}\n\n" if message.HasField("event") else _ALIVE
        yield "event: ended\ndata:\n\n"
    except CallFailed as error:
        # Draining, or a token that is renewed: the page asks again. Anything else: loading it again tells.
        renewed = error.reason == "TOKEN_EXPIRED" and session.renewal is not None and not session.ended.is_set()
        again = renewed or error.code.name == "UNAVAILABLE"
        yield "event: again\ndata:\n\n" if again else "event: ended\ndata:\n\n"
    finally:
        session.streams -= 1
        ended.cancel()


async def _given_up(following: asyncio.Future[WatchFlowResponse | None]) -> None:
    """Ends a read that nobody waits for any more, so that its stream can be closed."""
    if not following.done():
        following.cancel()
        await asyncio.wait((following,))
