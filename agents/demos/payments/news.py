"""Tells how flows end: a few small refunds one by one, then only their number; everything else one by one."""

from collections.abc import Mapping

from demos.payments.chargebacks import Chargeback
from demos.payments.outbox import Outbox
from demos.stage.story import Story
from handrail.v1.decision_pb2 import FlowStatus
from payments.v1.payments_pb2 import Outcome

ONE_BY_ONE = 3

REFUNDED = Outcome.Name(Outcome.OUTCOME_REFUNDED)


class News:
    """Tells the end of each flow once."""

    def __init__(self, chargebacks: Mapping[str, Chargeback], outbox: Outbox, story: Story) -> None:
        self._chargebacks = chargebacks
        self._outbox = outbox
        self._story = story
        self._small = 0

    def tell(self, ended: Mapping[str, FlowStatus.ValueType]) -> None:
        """Tells the chargebacks with flows that have ended since the last time, with their statuses."""
        letters = {letter.chargeback_id: letter for letter in self._outbox.letters()}
        small = 0
        for id_, status in ended.items():
            amount, letter = self._chargebacks[id_].amount, letters.get(id_)
            if letter is not None and letter.outcome == REFUNDED and not amount.is_large:
                small += 1
                if self._small + small > ONE_BY_ONE:
                    continue
            told = f'{letter.to} is told: "{letter.text}"' if letter is not None else "its customer is told nothing"
            ending = FlowStatus.Name(status).removeprefix("FLOW_STATUS_").lower()
            self._story.tell(f"{id_}: {amount}: {ending}; {told}")
        self._small += small
        if small and self._small > ONE_BY_ONE:
            self._story.tell(f"{self._small} small refunds are paid, and their customers told")
