"""Who may call: without a valid token nobody, with one what its roles allow."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from handrail.coordinator.api.dev_tokens import ensure_keys, mint
from handrail.v1.flow_service_pb2 import ListFlowsRequest, ListFlowsResponse
from handrail.v1.identity_service_pb2 import WhoAmIRequest, WhoAmIResponse
from handrail.v1.quarantine_service_pb2 import ListQuarantinedRequest, ListQuarantinedResponse
from tests.support.api import Api, bearer, refused, running_api

LIST = "FlowService/ListFlows"


def claims(**changes: Any) -> dict[str, Any]:
    """The claims of a good token, with changes; None leaves one out."""
    now = datetime.now(UTC)
    good = {"sub": "olga", "roles": ["operator"], "iss": "handrail", "aud": "handrail", "exp": now + timedelta(hours=1)}
    return {name: value for name, value in {**good, **changes}.items() if value is not None}


def signed(api: Api, **changes: Any) -> str:
    key = load_pem_private_key(api.keys.private.read_bytes(), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    return jwt.encode(claims(**changes), key, algorithm="EdDSA")


async def test_a_valid_token_is_let_in(api: Api) -> None:
    answer = await api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=bearer(signed(api)))
    assert answer == ListFlowsResponse()


async def who_am_i(api: Api, token: str) -> WhoAmIResponse:
    answer: WhoAmIResponse = await api.call(
        "IdentityService/WhoAmI", WhoAmIRequest(), WhoAmIResponse, metadata=bearer(token)
    )
    return answer


async def test_a_caller_is_told_what_its_token_proves(api: Api) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    token = signed(
        api, sub="Olga", roles=None, handrail=["reader@loan", "operator@refund"], jti="7", iat=now, agent="ledger"
    )
    answer = await who_am_i(api, token)
    assert (answer.subject, answer.canonical_subject) == ("Olga", "olga")
    assert list(answer.grants) == ["operator@refund", "reader@loan"]
    assert (answer.agent, answer.issuer, answer.token_id) == ("ledger", "handrail", "7")
    assert answer.issue_time.ToDatetime(UTC) == now
    assert timedelta(minutes=59) < answer.expire_time.ToDatetime(UTC) - now <= timedelta(hours=1, seconds=1)


async def test_a_caller_without_any_grant_is_told_so_and_nobody_is_told_without_a_token(api: Api) -> None:
    answer = await who_am_i(api, signed(api, roles=None, handrail=[]))
    assert (answer.subject, list(answer.grants), answer.HasField("issue_time")) == ("olga", [], False)
    refusal = await refused(api.call("IdentityService/WhoAmI", WhoAmIRequest(), WhoAmIResponse))
    assert refusal.reason == "UNAUTHENTICATED"


async def test_without_a_token_nobody_is_let_in(api: Api) -> None:
    refusal = await refused(api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


@pytest.mark.parametrize("header", ["Basic b2xnYTpwdw==", "Bearer", "Bearer x", "Bearer a.b.c", "olga"])
async def test_what_is_no_bearer_token_is_refused(api: Api, header: str) -> None:
    refusal = await refused(
        api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=(("authorization", header),))
    )
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


NOW = datetime.now(UTC)
BAD_CLAIMS: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "elsewhere"},
    "another audience": {"aud": "elsewhere"},
    "no subject": {"sub": None},
    "no expiry": {"exp": None},
    "no issuer": {"iss": None},
    "no audience": {"aud": None},
    "not valid yet": {"nbf": NOW + timedelta(days=1)},
    "an empty subject": {"sub": ""},
    "a subject of 257 characters": {"sub": "x" * 257},
    "a subject with a line break": {"sub": "olga\npaul"},
    "a subject that passes for an agent's": {"sub": "agent/ledger"},
    "roles that are a text": {"roles": "operator"},
    "roles that are no texts": {"roles": [1]},
    "grants that are a text": {"handrail": "operator@*"},
    "grants that are no texts": {"handrail": [1]},
    "a grant without a flow type": {"handrail": ["operator"]},
    "a grant on a flow type that is no name": {"handrail": ["operator@Re.fund"]},
    "a grant on some flow types": {"handrail": ["operator@re*"]},
    "a grant of a role that is none": {"handrail": ["root@*"]},
    "an approver of no role": {"handrail": ["approver.@*"]},
    "one bad grant among good ones": {"handrail": ["reader@*", "operator@"]},
    "no grants but null": {"handrail": [None]},
    "an agent that is no name": {"agent": "led.ger"},
    "the coordinator as agent": {"agent": "coordinator"},
    "a user of the broker's as agent": {"agent": "viewer"},
}


@pytest.mark.parametrize("case", BAD_CLAIMS)
async def test_a_signed_token_with_bad_claims_is_refused(api: Api, case: str) -> None:
    token = signed(api, **BAD_CLAIMS[case])
    refusal = await refused(api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=bearer(token)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")


async def test_an_expired_token_is_refused_as_expired(api: Api) -> None:
    token = signed(api, exp=datetime.now(UTC) - timedelta(minutes=1))
    refusal = await refused(api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=bearer(token)))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "TOKEN_EXPIRED")


def part(content: dict[str, Any]) -> str:
    encoded = json.dumps(content, default=lambda time: int(time.timestamp())).encode()
    return base64.urlsafe_b64encode(encoded).decode().rstrip("=")


async def test_a_forged_token_is_refused(api: Api, tmp_path: Path) -> None:
    other = ensure_keys(tmp_path / "other")
    public = api.keys.public.read_bytes()
    # Signed with the public key as if it were a shared secret: works where the token's header chooses the algorithm.
    mac = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    message = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{part(claims())}"
    signature = base64.urlsafe_b64encode(mac.sign(message.encode(), public)).decode().rstrip("=")
    head, _, tail = signed(api, roles=["viewer"]).split(".")
    forged = {
        "signed with another key": mint(other.private, "olga", roles=["operator"]),
        "not signed": f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims())}.",
        "signed with the public key": f"{message}.{signature}",
        "claims exchanged": f"{head}.{part(claims())}.{tail}",
    }
    for case, token in forged.items():
        refusal = await refused(api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=bearer(token)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED"), case


async def test_any_of_several_keys_may_have_signed(bus: Any, tmp_path: Path) -> None:
    retired, current = ensure_keys(tmp_path / "retired"), ensure_keys(tmp_path / "keys")
    async with running_api(bus, tmp_path, more_keys=(retired.public,)) as api:
        for keys in (retired, current):
            token = mint(keys.private, "olga")
            answer = await api.call(LIST, ListFlowsRequest(scan=True), ListFlowsResponse, metadata=bearer(token))
            assert list(answer.flows) == []


async def test_a_missing_role_is_named(api: Api) -> None:
    refusal = await refused(
        api.call(
            "QuarantineService/ListQuarantined",
            ListQuarantinedRequest(),
            ListQuarantinedResponse,
            metadata=bearer(api.token("fred", "finance")),
        )
    )
    assert refusal.reason == "MISSING_ROLE"
    assert "quarantine_reader@<flow type> or operator@<flow type>" in refusal.status.message


async def test_health_is_open_and_channelz_is_for_operators(api: Api) -> None:
    healthy = await api.grpcurl("grpc.health.v1.Health/Check")
    assert (healthy.code, '"SERVING"' in healthy.out) == (0, True)
    # grpcurl exits with 64 + the gRPC code.
    assert (await api.grpcurl("grpc.channelz.v1.Channelz/GetServers")).code == 64 + 16
    viewer = api.token("vera", "viewer")
    assert (await api.grpcurl("grpc.channelz.v1.Channelz/GetServers", token=viewer)).code == 64 + 7
    seen = await api.grpcurl("grpc.channelz.v1.Channelz/GetServers", token=api.token("olga", "operator"))
    assert seen.code == 0
    assert "callsStarted" in seen.out


async def test_reflection_can_be_switched_off(bus: Any, tmp_path: Path) -> None:
    async with running_api(bus, tmp_path, reflection=False) as api:
        assert (await api.grpcurl("list")).code != 0


def test_keys_are_made_once_and_the_private_one_is_the_owners_alone(tmp_path: Path) -> None:
    made = ensure_keys(tmp_path / "new" / "keys")
    private = made.private.read_bytes()
    assert made.private.stat().st_mode & 0o777 == 0o600
    made.public.unlink()
    again = ensure_keys(tmp_path / "new" / "keys")
    assert again.private.read_bytes() == private
    assert again.public.exists()
