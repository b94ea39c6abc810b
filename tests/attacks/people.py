"""One person passes for two, or approves what he asked for, by another spelling of his name."""

from __future__ import annotations

import grpc
from grpc_status import rpc_status

from handrail.v1.approval_service_pb2 import ApproveProposalRequest
from tests.attacks.attack import Run, attack, succeeded
from tests.attacks.installation import LARGE, Installation
from tests.support.api import bearer
from tests.support.people import People, name_of


async def outcome_of_votes(target: Installation, people: People, flow_id: str, *names: str) -> str:
    """What each of these names is told for its yes, all of role finance; raises Succeeded if the gate opens."""
    approval = await people.approval(flow_id)
    told = []
    for name in names:
        request = ApproveProposalRequest(approval_id=approval.approval_id, digest=approval.digest)
        try:
            answer = await people.approvals.ApproveProposal(request, metadata=bearer(target.token(name, "finance")))
            told.append(f"{len(answer.approval.votes)} of 2")
        except grpc.aio.AioRpcError as error:
            told.append(reason_of(error))
    if name_of((await people.flow(flow_id)).status) != "WAITING_APPROVAL":
        succeeded(f"the gate opened: {told}")
    return ", ".join(f"{name!r}: {said}" for name, said in zip(names, told, strict=True))


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The code of a refusal, and its text."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]
    return f"{error.code().name} {status.message if status else error.details()}"


def twice(*names: str) -> Run:
    """Votes for one person under several names."""

    async def vote(target: Installation) -> str:
        async with target.people() as people:
            return await outcome_of_votes(target, people, await target.flow_from_start(people, LARGE), *names)

    return vote


SPELLINGS = {
    "51": ("a trailing space", ("anna", "anna ")),
    "52": ("another Unicode form (NFC, NFD)", ("zo\u00eb", "zoe\u0308")),
    "53": ("a Cyrillic letter that looks the same", ("anna", "\u0430nna")),
    "53b": ("an invisible character", ("anna", "an\u200bna")),
    "53c": ("full-width letters", ("anna", "\uff41\uff4e\uff4e\uff41")),
}
for id_, (what, names_) in SPELLINGS.items():
    guards = ("p6_a_name_is_its_spelling", "p6_one_person_votes_twice")
    attack(id_, f"one person gives both votes, with {what}", mutant=guards)(twice(*names_))


@attack(
    "54", "who asked for a refund approves it as 'Olga'", mutant=("p6_a_name_is_its_spelling", "p6_the_requester_votes")
)
async def requester_in_capitals(target: Installation) -> str:
    async with target.people() as people:
        flow_id = await target.flow_from_start(people, LARGE)  # by olga
        said = await outcome_of_votes(target, people, flow_id, "Olga", "OLGA ")
        if (await people.flow(flow_id)).approvals[0].votes:
            succeeded(said)
        return said
