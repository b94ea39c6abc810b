"""Writes chargebacks.jsonl and customers.jsonl: `python -m demos.payments.generate [--seed N] [--count N] [FOLDER]`."""

import argparse
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from demos.payments.customers import Customer

SEED = 2025
COUNT = 220
CUSTOMERS = 120

# One chargeback in so many is large.
LARGE_EVERY = 20

CURRENCIES = ("EUR", "EUR", "EUR", "USD", "USD", "GBP")
REASONS = (
    "goods not received",
    "not as described",
    "charged twice",
    "subscription cancelled",
    "card stolen",
    "credit not processed",
)
FIRST_NAMES = ("ada", "bela", "chen", "dora", "emil", "fatima", "goran", "hana", "ines", "jonas", "kofi", "lena")
LAST_NAMES = ("abel", "brandt", "costa", "dahl", "eriksen", "fabre", "gruber", "haas", "ito", "jansen")
FIRST_DAY = datetime(2025, 3, 3, 8, tzinfo=UTC)


def customers(random: Random) -> Iterator[Customer]:
    """Customers, most of them without earlier chargebacks, none with so many that a person must look at them."""
    names = [f"{first}.{last}" for first in FIRST_NAMES for last in LAST_NAMES]
    for number, name in enumerate(names[:CUSTOMERS], start=1):
        yield Customer(f"acct-{number:04d}", f"{name}@example.com", random.choice((0, 0, 0, 0, 1, 2)))


def chargebacks(random: Random, count: int) -> Iterator[dict[str, object]]:
    """Chargebacks as JSON of payments.v1.ChargebackReceived: most are small, one in twenty is 1,000 or more."""
    time = FIRST_DAY
    for number in range(1, count + 1):
        large = number % LARGE_EVERY == LARGE_EVERY // 2
        cents = random.randint(100_000, 900_000) if large else min(99_999, int(random.lognormvariate(8.3, 1.0)) + 100)
        units, rest = divmod(cents, 100)
        time += timedelta(seconds=random.randint(5, 600))
        yield {
            "chargeback_id": f"cb-{number:04d}",
            "account_id": f"acct-{random.randint(1, CUSTOMERS):04d}",
            "amount": {"currency_code": random.choice(CURRENCIES), "units": units, "nanos": rest * 10_000_000},
            "reason": random.choice(REASONS),
            "received_time": f"{time:%Y-%m-%dT%H:%M:%SZ}",
        }


def write_lines(path: Path, lines: Iterable[object]) -> None:
    """Writes values as JSON lines."""
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")


def main() -> None:
    """Writes both files into a folder; by default this one."""
    parser = argparse.ArgumentParser(prog="python -m demos.payments.generate", description=__doc__)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--count", type=int, default=COUNT, help="number of chargebacks")
    parser.add_argument("folder", nargs="?", type=Path, default=Path(__file__).parent)
    arguments = parser.parse_args()
    random = Random(arguments.seed)
    write_lines(arguments.folder / "customers.jsonl", (asdict(customer) for customer in customers(random)))
    write_lines(arguments.folder / "chargebacks.jsonl", chargebacks(random, arguments.count))


if __name__ == "__main__":
    main()
