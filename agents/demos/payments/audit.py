"""The audit at the end of a run: each flow, then the whole book."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from demos.payments.book import Posting, Transfer, customer_account
from demos.payments.chargebacks import Chargeback
from demos.payments.money import Amount
from demos.payments.outbox import Letter
from demos.payments.plan import Ending, Plan
from handrail.v1.decision_pb2 import FlowStatus
from payments.v1.payments_pb2 import Outcome

STATUS = {
    Ending.REFUNDED: FlowStatus.FLOW_STATUS_COMPLETED,
    Ending.REFUSED: FlowStatus.FLOW_STATUS_COMPLETED,
    Ending.COMPENSATED: FlowStatus.FLOW_STATUS_COMPENSATED,
}
LETTERS = {
    Ending.REFUNDED: [Outcome.Name(Outcome.OUTCOME_REFUNDED)],
    Ending.REFUSED: [Outcome.Name(Outcome.OUTCOME_REFUSED)],
    Ending.COMPENSATED: [],
}


@dataclass(frozen=True, slots=True)
class Evidence:
    """The results of a run: the status of the flow of each chargeback, the book, and the messages to customers."""

    statuses: Mapping[str, FlowStatus.ValueType]
    transfers: Sequence[Transfer]
    postings: Sequence[Posting]
    letters: Sequence[Letter]


def audit(chargebacks: Iterable[Chargeback], plan: Plan, evidence: Evidence) -> list[str]:
    """Compares the evidence with the plan; returns a line for each fault.

    A completed refund moved its amount once, from the company to the customer, and the customer was told once. Every
    other end nets zero.
    """
    transfers: dict[str, list[Transfer]] = defaultdict(list)
    letters: dict[str, list[str]] = defaultdict(list)
    for transfer in evidence.transfers:
        transfers[transfer.chargeback_id].append(transfer)
    for letter in evidence.letters:
        letters[letter.chargeback_id].append(letter.outcome)

    wrong = []
    for chargeback in chargebacks:
        ending = plan.ending(chargeback.id)
        status = evidence.statuses.get(chargeback.id, FlowStatus.FLOW_STATUS_UNSPECIFIED)
        told = letters.pop(chargeback.id, [])
        complaints = [*_money(chargeback, ending, transfers.pop(chargeback.id, []))]
        if status != STATUS[ending]:
            complaints.append(f"its flow is {_name(status)}, not {_name(STATUS[ending])}")
        if told != LETTERS[ending]:
            complaints.append(f"its customer was told {told}, not {LETTERS[ending]}")
        wrong += [f"chargeback {chargeback.id}, planned as {ending}: {complaint}" for complaint in complaints]
    wrong += [f"the book moves money for {id_}, which is not a chargeback of this run" for id_ in transfers]
    wrong += [f"the outbox has a message for {id_}, which is not a chargeback of this run" for id_ in letters]
    return [*wrong, *_unbalanced(evidence.postings)]


def _money(chargeback: Chargeback, ending: Ending, transfers: Sequence[Transfer]) -> Iterator[str]:
    """The faults in the money that moved for one chargeback."""
    amount = chargeback.amount
    expected = {Ending.REFUNDED: [amount], Ending.REFUSED: [], Ending.COMPENSATED: [amount, -amount]}[ending]
    moved = [transfer.amount for transfer in transfers]
    if moved != expected:
        yield f"the book moved [{_listed(moved)}] to its customer, not [{_listed(expected)}]"
    account = customer_account(chargeback.message.account_id)
    yield from (
        f"transfer {transfer.transfer_id} is with {transfer.account}, not with {account}"
        for transfer in transfers
        if transfer.account != account
    )


def _unbalanced(postings: Iterable[Posting]) -> Iterator[str]:
    """The transfers with postings that do not add up to zero. Without any, the whole book balances."""
    sums: dict[tuple[str, str], int] = defaultdict(int)
    for posting in postings:
        sums[posting.transfer_id, posting.amount.currency] += posting.amount.nanos
    for (transfer_id, currency), nanos in sums.items():
        if nanos:
            yield f"transfer {transfer_id} does not balance: its postings add up to {Amount(currency, nanos)}"


def _listed(amounts: Iterable[Amount]) -> str:
    return ", ".join(map(str, amounts))


def _name(status: FlowStatus.ValueType) -> str:
    return FlowStatus.Name(status).removeprefix("FLOW_STATUS_")
