"""People who answer pending proposals, over gRPC, each with their own token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, ListApprovalsRequest, RejectProposalRequest
from handrail.v1.flow_service_pb2 import Approval


@dataclass(frozen=True, slots=True)
class Vote:
    """A person's answer to a proposal."""

    voter: str
    approve: bool


@dataclass(frozen=True, slots=True)
class Question:
    """A proposal in words (`name` waits for `people`) and its answer; `refusal` is the comment of a no."""

    name: str
    people: str
    votes: Sequence[Vote]
    refusal: str


class Desk:
    """Answers every pending approval; `people` are the approvers' clients by name."""

    def __init__(self, people: Mapping[str, Client], question: Callable[[Approval], Question], story: Story) -> None:
        self._people = people
        self._question = question
        self._story = story
        self._answered: set[str] = set()

    def look(self) -> None:
        """Answers pending approvals. A call that fails is repeated at the next look: the same vote counts once."""
        reader = next(iter(self._people.values()))
        method, request = reader.approvals.ListApprovals, ListApprovalsRequest()
        for approval in reader.listed(method, request, items=lambda page: page.approvals):
            if approval.approval_id not in self._answered:
                self._answer(approval)
                self._answered.add(approval.approval_id)

    def _answer(self, approval: Approval) -> None:
        question = self._question(approval)
        self._story.tell(f"{question.name} waits for {question.people}")
        for number, vote in enumerate(question.votes, start=1):
            self._vote(approval, vote, question.refusal)
            answer = f"yes ({number} of {len(question.votes)})" if vote.approve else "no"
            self._story.tell(f"{question.name}: {vote.voter} says {answer}")

    def _vote(self, approval: Approval, vote: Vote, refusal: str) -> None:
        client = self._people[vote.voter]
        seen = {"approval_id": approval.approval_id, "digest": approval.digest}
        if vote.approve:
            client.call(client.approvals.ApproveProposal, ApproveProposalRequest(**seen))
        else:
            client.call(client.approvals.RejectProposal, RejectProposalRequest(**seen, comment=refusal))
