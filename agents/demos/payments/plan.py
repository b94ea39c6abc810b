"""The faults of a run, and the required end of each chargeback: drawn from the seed before the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random

from demos.payments.chargebacks import Chargeback
from demos.stage.desk import Vote
from demos.stage.killer import Kill

APPROVERS = ("anna", "ben")

# One large refund in so many is refused, and one notification in so many fails; at least one of each.
REFUSED_EVERY = 10
UNDELIVERABLE_EVERY = 200

# The agents that may be killed: other agents wait for their work.
MAY_BE_KILLED = ("enrichment", "ledger", "refunds", "notification")


class Ending(StrEnum):
    """How a chargeback ends."""

    REFUNDED = "refunded"
    REFUSED = "refused"
    COMPENSATED = "compensated"


@dataclass(frozen=True, slots=True)
class Plan:
    """The votes on each large refund in order, the chargebacks with a notification that always fails, and the kill."""

    votes: Mapping[str, Sequence[Vote]]
    undeliverable: frozenset[str]
    kill: Kill

    @classmethod
    def draw(cls, chargebacks: Sequence[Chargeback], seed: int) -> "Plan":
        """Draws a plan: the same chargebacks and the same seed give the same plan."""
        random = Random(seed)
        large = [chargeback.id for chargeback in chargebacks if chargeback.amount.is_large]
        refused = _some(random, large, REFUSED_EVERY)
        votes = {id_: _votes(random, refuse=id_ in refused) for id_ in large}
        paid = [chargeback.id for chargeback in chargebacks if chargeback.id not in refused]
        undeliverable = _some(random, paid, UNDELIVERABLE_EVERY)
        agent, share = random.choice(MAY_BE_KILLED), random.uniform(0.2, 0.5)
        # A flow that waits for votes, or is compensated, may end after all others.
        quick = len(chargebacks) - len(large) - len(undeliverable)
        return cls(votes, undeliverable, Kill(agent, int(share * max(quick, 0))))

    def ending(self, chargeback_id: str) -> Ending:
        """The required end of a chargeback under this plan."""
        if not all(vote.approve for vote in self.votes.get(chargeback_id, ())):
            return Ending.REFUSED
        return Ending.COMPENSATED if chargeback_id in self.undeliverable else Ending.REFUNDED


def _some(random: Random, ids: Sequence[str], one_in: int) -> frozenset[str]:
    return frozenset(random.sample(ids, min(len(ids), max(1, len(ids) // one_in))))


def _votes(random: Random, *, refuse: bool) -> tuple[Vote, ...]:
    """Two approvals; or one refusal, which is enough, alone or after the other's approval."""
    first, second = random.sample(APPROVERS, 2)
    if not refuse:
        return Vote(first, True), Vote(second, True)
    return random.choice(((Vote(first, False),), (Vote(first, True), Vote(second, False))))
