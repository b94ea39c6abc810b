"""The compliance officer: a person who answers escalations over gRPC, according to the plan."""

from collections.abc import Iterator, Mapping

from compliance.v1.compliance_pb2 import CheckFailed
from demos.compliance.history import History
from demos.stage.board import Board
from demos.stage.story import Story
from handrail.cli.client import Client
from handrail.cli.exit_codes import CommandError, Exit
from handrail.v1.decision_pb2 import Choice, FlowStatus
from handrail.v1.flow_service_pb2 import GetFlowRequest, ResolveEscalationRequest

NAME = "olga"

REASONS = {
    Choice.CHOICE_RESUME: "examined: it may be used",
    Choice.CHOICE_CANCEL: "examined: it may not be used",
}


class Officer:
    """Answers the open escalations of the flows on a board, at each look one of each flow."""

    def __init__(self, client: Client, board: Board, answers: Mapping[str, Choice.ValueType], story: Story) -> None:
        self._client = client
        self._board = board
        self._answers = answers
        self._story = story
        self._told: set[str] = set()

    def look(self) -> None:
        """Answers the open escalations."""
        for key, status in self._board.statuses.items():
            if status == FlowStatus.FLOW_STATUS_ESCALATED:
                self._attend(key, self._board.flow_ids[key])

    def _attend(self, key: str, flow_id: str) -> None:
        flow = self._client.call(self._client.flows.GetFlow, GetFlowRequest(flow_id=flow_id)).flow
        choice = self._answers.get(key)
        for escalation in flow.escalations[:1]:
            if key not in self._told:
                self._told.add(key)
                self._story.tell(f"{key} needs a person: {'; '.join(self._why(flow_id))}")
            if choice is None or choice not in escalation.choices:
                continue  # not in the plan: the flow stays unchanged, and the audit reports it
            request = ResolveEscalationRequest(
                flow_id=flow_id, escalation_id=escalation.escalation_id, choice=choice, reason=REASONS[choice]
            )
            try:
                self._client.call(self._client.flows.ResolveEscalation, request)
            except CommandError as error:
                if error.code is Exit.UNREACHABLE:
                    raise
                # It settled itself meanwhile, for example because a changed file was found.
                self._story.tell(f"{key}: {NAME}'s answer is too late: {error}")
            else:
                self._story.tell(f"{key}: {NAME} says {'yes' if choice == Choice.CHOICE_RESUME else 'no'}")

    def _why(self, flow_id: str) -> Iterator[str]:
        for failed in History.read(self._client, flow_id).of(CheckFailed):
            yield from (finding.text for finding in failed.findings[:1])
