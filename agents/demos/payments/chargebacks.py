"""The file of chargebacks: one payments.v1.ChargebackReceived a line, as protobuf JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import json_format

from demos.payments.money import Amount
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import ContractViolation
from payments.v1.payments_pb2 import ChargebackReceived

CONTRACTS = Contracts.from_messages([ChargebackReceived])


@dataclass(frozen=True, slots=True)
class Chargeback:
    """A line with a chargeback; lines count from 1."""

    line: int
    message: ChargebackReceived

    @property
    def id(self) -> str:
        """The bank's reference, which is the business key of the flow."""
        return self.message.chargeback_id

    @property
    def amount(self) -> Amount:
        """The amount claimed."""
        return Amount.of(self.message.amount)


@dataclass(frozen=True, slots=True)
class Skipped:
    """A line that begins no flow, with the reason: it is malformed, or repeats an earlier one."""

    line: int
    reason: str


def read_chargebacks(path: Path) -> Iterator[Chargeback | Skipped]:
    """Reads the file line by line; blank lines are counted and ignored.

    The `chargeback_id` identifies a chargeback: its first line counts, and later lines are skipped.

    Raises:
        OSError: if the file can't be read.
    """
    seen: dict[str, Chargeback] = {}
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            found = _parse(number, line)
            if isinstance(found, Chargeback):
                first = seen.setdefault(found.id, found)
                if first is not found:
                    same = "the same" if first.message == found.message else "another"
                    found = Skipped(
                        number,
                        f"{same} chargeback {found.message.chargeback_id} was on line {first.line}: that one counts",
                    )
            yield found


def _parse(number: int, line: bytes) -> Chargeback | Skipped:
    if not line.lstrip().startswith(b"{"):
        return Skipped(number, "it is not a JSON object")
    try:
        message = json_format.Parse(line.strip().decode(), ChargebackReceived())
        CONTRACTS.validate(message)
        Amount.of(message.amount)
    except (json_format.ParseError, ContractViolation, ValueError, RecursionError) as error:
        return Skipped(number, " ".join(str(error).split()))
    return Chargeback(number, message)
