"""The tables at the end of a run: the outcomes of the chargebacks, and the totals of the book."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from demos.payments.book import COMPANY, Posting
from demos.payments.chargebacks import Chargeback
from demos.payments.money import Amount
from demos.payments.plan import Ending, Plan
from demos.stage.story import table


def outcome_table(chargebacks: Iterable[Chargeback], plan: Plan, skipped: int) -> list[str]:
    """The number of chargebacks by outcome, small and large ones separately."""
    counts = Counter((plan.ending(chargeback.id), chargeback.amount.is_large) for chargeback in chargebacks)
    rows = []
    for ending in Ending:
        small, large = counts[ending, False], counts[ending, True]
        rows.append([ending.value, str(small), str(large), str(small + large)])
    lines = table([["outcome", "small", "large", "flows"], *rows])
    return [*lines, f"  {skipped} lines of the input were skipped"] if skipped else lines


def book_table(postings: Sequence[Posting]) -> list[str]:
    """What the company paid and its customers got, by currency; the sum of a balanced book is zero."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for posting in postings:
        side = "company" if posting.account == COMPANY else "customers"
        for column in (side, "sum"):
            totals[posting.amount.currency][column] += posting.amount.nanos
    columns = ("company", "customers", "sum")
    rows = [
        [currency, *(Amount(currency, sums[column]).figure for column in columns)]
        for currency, sums in sorted(totals.items())
    ]
    return table([["ledger", *columns], *rows])
