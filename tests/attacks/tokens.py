"""Tokens that are forged, live for ever, name somebody they may not name, or outlive their end."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import grpc
import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handrail.coordinator.api.tokens.rules import LEEWAY
from handrail.v1.flow_service_pb2 import ListFlowsRequest, ListFlowsResponse, WatchFlowRequest, WatchFlowResponse
from tests.attacks.attack import attack, refused, succeeded
from tests.attacks.installation import Installation
from tests.support.api import EOF, bearer
from tests.support.compose import compose_file, mounts
from tests.support.tokens import forgeries, pem, private_key

_ENOUGH = 20
"""Seconds in which a watch has to end."""


async def answered(target: Installation, *tokens: str) -> list[str]:
    """What callers with these tokens are told: OK, or the code of the refusal."""
    told = []
    async with target.channel() as channel:
        rpc = channel.unary_unary(
            "/handrail.v1.FlowService/ListFlows",
            request_serializer=ListFlowsRequest.SerializeToString,
            response_deserializer=ListFlowsResponse.FromString,
        )
        for token in tokens:
            code = await rpc(ListFlowsRequest(scan=True, page_size=1), metadata=bearer(token), timeout=20).code()
            told.append(code.name)
    return told


async def all_refused(target: Installation, tokens: dict[str, str]) -> str:
    """How these tokens are refused; raises Succeeded if one is accepted."""
    told = dict(zip(tokens, await answered(target, *tokens.values()), strict=True))
    accepted = [name for name, code in told.items() if code != "UNAUTHENTICATED"]
    return refused(f"UNAUTHENTICATED: {', '.join(tokens)}", unless=accepted)


@attack("50", "a token that is valid for ever", mutant="p6_a_token_lives_for_ever")
async def valid_for_ever(target: Installation) -> str:
    last = datetime(9999, 12, 31, tzinfo=UTC)
    return await all_refused(
        target,
        {
            "until 9999": target.token("olga", "operator", exp=last),
            "until 9999, not saying from when": target.token("olga", "operator", exp=last, iat=None),
            "for 25 hours": target.token("olga", "operator", lifetime=timedelta(hours=25)),
        },
    )


@attack(
    "50b",
    "forged tokens of every known kind",
    mutant=("p6_the_header_brings_its_key", "p6_any_type_of_token_is_for_access"),
)
async def forged(target: Installation) -> str:
    key = cast("Ed25519PrivateKey", load_pem_private_key(target.keys.private.read_bytes(), password=None))
    # gRPC itself refuses metadata as long as the one that is too long.
    tricks = {each.trick: each.token for each in forgeries(key) if each.trick != "too long"}
    return await all_refused(target, tricks)


@attack("67", "a token whose key was withdrawn while the coordinator runs", mutant="p6_keys_are_read_once")
async def withdrawn_key(target: Installation) -> str:
    token, former = target.token("olga", "operator"), target.keys.public.read_bytes()
    (before,) = await answered(target, token)
    if before != "OK":
        raise AssertionError(f"a good token is refused: {before}")
    target.keys.public.write_bytes(pem(private_key("EdDSA")))
    try:
        return await all_refused(target, {"signed with the former key": token})
    finally:
        target.keys.public.write_bytes(former)


@attack(
    "45",
    "a service of the compose file takes the key that signs tokens, or the token of another person",
    mutant="p6_the_operator_has_every_token",
)
async def other_volumes(target: Installation) -> str:
    services = compose_file()["services"]
    seen = {name: {mount.volume for mount in mounts(service)} for name, service in services.items() if name != "tokens"}
    thieves = [
        f"{name} sees {sorted(volumes)}"
        for name, volumes in seen.items()
        if "signing-key" in volumes or len([volume for volume in volumes if volume.endswith("-token")]) > 1
    ]
    return refused(f"none of {len(seen)} services beside tokens sees the key, or more than one token", unless=thieves)


RESERVED = ("coordinator", "Coordinator", "COORDINATOR ", "coordi\u200bnator")
AGENTS = ("agent/ledger", "Agent/ledger", " agent/x", "\uff41gent/ledger")


@attack("72", "a person passes for the coordinator", mutant="p6_anybody_is_the_coordinator")
async def named_coordinator(target: Installation) -> str:
    return await all_refused(target, {repr(name): target.token(name, "operator") for name in RESERVED})


@attack("73", "a person passes for an agent on the bus", mutant="p6_anybody_is_an_agent")
async def named_agent(target: Installation) -> str:
    return await all_refused(target, {repr(name): target.token(name, "operator") for name in AGENTS})


@attack("74", "a watch goes on after its token has expired", mutant="p6_a_watch_outlives_its_token")
async def watch_for_ever(target: Installation) -> str:
    async with target.people() as people:
        flow_id = await target.flow_from_start(people)
    token = target.token("vera", "viewer", lifetime=timedelta(seconds=2) - LEEWAY)
    async with target.channel() as channel:
        rpc: Any = channel.unary_stream(
            "/handrail.v1.FlowService/WatchFlow",
            request_serializer=WatchFlowRequest.SerializeToString,
            response_deserializer=WatchFlowResponse.FromString,
        )
        call, read = rpc(WatchFlowRequest(flow_id=flow_id), metadata=bearer(token)), 0
        try:
            async with asyncio.timeout(_ENOUGH):
                while await call.read() is not EOF:
                    read += 1
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED and read:
                return f"{error.code().name} after {read} messages: {error.details()}"
            raise
        except TimeoutError:
            succeeded(f"after {_ENOUGH} s the watch still runs; {read} messages")
    raise AssertionError("the watch ended without an error")
