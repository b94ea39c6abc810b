"""Revocations: how many wait, and how long for the last of them."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from handrail.console.openid import revocations as module
from handrail.console.openid.client import Client
from handrail.console.openid.provider import Provider
from handrail.console.openid.revocations import Revocations


class Held(Provider):
    """A provider that revokes nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__(Client(issuer="https://id.example.com", client_id="console"))
        self.go = asyncio.Event()
        self.revoked: list[str] = []

    async def revoke(self, refresh_token: str) -> None:
        await self.go.wait()
        self.revoked.append(refresh_token)


async def test_each_token_is_revoked_once_and_none_is_left() -> None:
    provider = Held()
    revocations = Revocations(provider)
    tokens = [f"token {number}" for number in range(100)]
    for each in tokens:
        revocations.add(each)
    provider.go.set()
    await revocations.finish(timedelta(minutes=1))
    revocations.add("one more")
    await revocations.finish(timedelta(minutes=1))
    assert provider.revoked == [*tokens, "one more"]


async def test_no_more_wait_than_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 8)
    provider = Held()
    revocations = Revocations(provider)
    for number in range(20):
        revocations.add(f"secret {number}")
    assert caplog.text.count("a token is not revoked") == 12
    assert "secret" not in caplog.text
    provider.go.set()
    await revocations.finish(timedelta(minutes=1))
    assert len(provider.revoked) == 8


async def test_the_end_waits_no_longer_than_it_is_told(caplog: pytest.LogCaptureFixture) -> None:
    revocations = Revocations(Held())
    for number in range(20):
        revocations.add(f"token {number}")
    await asyncio.sleep(0)
    await revocations.finish(timedelta())
    assert "20 tokens are not revoked" in caplog.text


async def test_without_a_provider_there_is_nothing_to_revoke() -> None:
    revocations = Revocations(None)
    revocations.add("token")
    await revocations.finish(timedelta(minutes=1))
    assert not revocations._waiting
