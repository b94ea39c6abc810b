"""Streams end with the token of their caller: expired, revoked, or signed with a key that was withdrawn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from handrail.coordinator.api.dev_tokens import ensure_keys, mint
from handrail.coordinator.api.tokens.rules import LEEWAY
from handrail.coordinator.api.tokens.settings import TokenSettings
from handrail.mesh.bus import NatsBus
from handrail.v1.flow_service_pb2 import WatchFlowRequest, WatchFlowResponse
from tests.support import flows
from tests.support.api import EOF, Api, Refusal, bearer, refused, running_api
from tests.support.mesh import publish


@pytest.fixture
def revoked(tmp_path: Path) -> Path:
    """The file of revoked tokens, with nothing in it."""
    path = tmp_path / "revoked"
    path.touch()
    return path


@pytest.fixture
async def api(bus: NatsBus, tmp_path: Path, revoked: Path) -> AsyncIterator[Api]:
    """A coordinator with one flow, and a second key that may sign tokens."""
    second = ensure_keys(tmp_path / "second")
    async with running_api(bus, tmp_path, more_keys=(second.public,), tokens=TokenSettings(revocations=revoked)) as api:
        await api.replica.catalog.put(flows.stored(flows.template()))
        await publish(bus, flows.start())
        yield api


def write(path: Path, text: str) -> None:
    """Replaces a file's content, as an operator does."""
    path.write_text(text)


async def watch(api: Api, token: str) -> Any:
    """A watch that has shown what there is."""
    rpc = api.channel.unary_stream(
        "/handrail.v1.FlowService/WatchFlow",
        request_serializer=WatchFlowRequest.SerializeToString,
        response_deserializer=WatchFlowResponse.FromString,
    )
    call = rpc(WatchFlowRequest(flow_id=flows.FLOW_ID), metadata=bearer(token))
    first: Any = await call.read()
    assert first.HasField("event")
    return call


async def end(call: Any) -> Refusal:
    """How a watch ends."""

    async def drained() -> object:
        while (response := await call.read()) is not EOF:
            assert response is not None
        return await call.code()

    async with asyncio.timeout(30):
        return await refused(drained())


def soon_expired(api: Api, subject: str) -> str:
    """A token that has expired, but is accepted for two seconds more."""
    return api.token(subject, lifetime=timedelta(seconds=2) - LEEWAY)


async def test_a_watch_ends_when_its_token_expires_and_others_go_on(api: Api) -> None:
    lasting, ending = await watch(api, api.token("vera")), await watch(api, soon_expired(api, "olga"))
    refusal = await end(ending)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")
    assert not lasting.done()


async def test_a_watch_ends_when_its_token_is_revoked(api: Api, revoked: Path) -> None:
    lasting, ending = await watch(api, api.token("vera")), await watch(api, api.token("olga"))
    write(revoked, f"subject {datetime.now(UTC).isoformat()} Olga\n")
    refusal = await end(ending)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert "revoked" in refusal.status.message
    assert not lasting.done()


async def test_a_watch_ends_when_the_key_of_its_token_is_withdrawn(api: Api, tmp_path: Path) -> None:
    second = ensure_keys(tmp_path / "second")
    lasting, ending = await watch(api, api.token("vera")), await watch(api, mint(second.private, "olga"))
    second.public.write_bytes(ensure_keys(tmp_path / "third").public.read_bytes())
    refusal = await end(ending)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
    assert not lasting.done()


async def test_a_watch_ends_when_revocations_can_not_be_read(api: Api, revoked: Path) -> None:
    ending = await watch(api, api.token("vera"))
    write(revoked, "whatever\n")
    refusal = await end(ending)
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "VERIFICATION_UNAVAILABLE")
