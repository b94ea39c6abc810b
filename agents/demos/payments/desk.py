"""Finance at its desk: two people who answer what waits for them, over gRPC, each with a token of their own."""

from collections.abc import Iterator, Mapping, Sequence

from demos.payments.money import Amount
from demos.payments.plan import Vote
from demos.payments.story import Story
from handrail.cli.client import Client
from handrail.v1.approval_service_pb2 import ApproveProposalRequest, ListApprovalsRequest, RejectProposalRequest
from handrail.v1.flow_service_pb2 import Approval
from payments.v1.payments_pb2 import LargeRefundGranted


class Desk:
    """Answers every approval that waits as the plan has it; `people` are the approvers' clients by name."""

    def __init__(self, people: Mapping[str, Client], votes: Mapping[str, Sequence[Vote]], story: Story) -> None:
        self._people = people
        self._votes = votes
        self._story = story
        self._answered: set[str] = set()

    def look(self) -> None:
        """Answer what waits now. Where a call fails it is made again at the next look: the same vote counts once."""
        for approval in self._waiting():
            if approval.approval_id not in self._answered:
                self._answer(approval)
                self._answered.add(approval.approval_id)

    def _waiting(self) -> Iterator[Approval]:
        reader = next(iter(self._people.values()))
        token = ""
        while True:
            page = reader.call(reader.approvals.ListApprovals, ListApprovalsRequest(page_size=500, page_token=token))
            yield from page.approvals
            token = page.next_page_token
            if not token:
                return

    def _answer(self, approval: Approval) -> None:
        granted = LargeRefundGranted()
        approval.data.Unpack(granted)
        votes = self._votes.get(granted.chargeback_id, ())
        refund = f"{granted.chargeback_id}: {Amount.of(granted.amount)}"
        self._story.tell(f"{refund} waits for two people of finance")
        for number, vote in enumerate(votes, start=1):
            self._vote(approval, vote)
            answer = f"yes ({number} of {len(votes)})" if vote.approve else "no"
            self._story.tell(f"{refund}: {vote.voter} says {answer}")

    def _vote(self, approval: Approval, vote: Vote) -> None:
        client = self._people[vote.voter]
        seen = {"approval_id": approval.approval_id, "digest": approval.digest}
        if vote.approve:
            client.call(client.approvals.ApproveProposal, ApproveProposalRequest(**seen))
        else:
            comment = "the claim is not covered"
            client.call(client.approvals.RejectProposal, RejectProposalRequest(**seen, comment=comment))
