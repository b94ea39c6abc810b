"""The files of a run in its folder, besides those of the installation (nats, logs, tokens and keys)."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from demos.payments import settings
from demos.payments.plan import Plan

NAMES = ("ledger.sqlite", "outbox.jsonl", "votes.json", "faults.json")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one run."""

    folder: Path

    @property
    def ledger(self) -> Path:
        """The book of the ledger, a SQLite file."""
        return self.folder / "ledger.sqlite"

    @property
    def outbox(self) -> Path:
        """The messages to customers, as JSON lines."""
        return self.folder / "outbox.jsonl"

    @property
    def votes(self) -> Path:
        """The planned votes: a list of voter and answer by chargeback, as JSON."""
        return self.folder / "votes.json"

    @property
    def faults(self) -> Path:
        """The planned faults: the chargebacks of unreachable customers, and the kill, as JSON."""
        return self.folder / "faults.json"

    def write_plan(self, plan: Plan, *, seed: int) -> None:
        """Writes the plan before the run."""
        votes = {id_: [asdict(vote) for vote in votes] for id_, votes in plan.votes.items()}
        faults = {"seed": seed, "undeliverable": sorted(plan.undeliverable), "kill": asdict(plan.kill)}
        for path, content in ((self.votes, votes), (self.faults, faults)):
            path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", "utf-8")

    def environment(self, plan: Plan, *, chargebacks: Path, per_second: float) -> Mapping[str, str]:
        """The environment variables of the agents."""
        return {
            settings.CHARGEBACKS: str(chargebacks.absolute()),
            settings.PER_SECOND: str(per_second),
            settings.LEDGER: str(self.ledger.absolute()),
            settings.OUTBOX: str(self.outbox.absolute()),
            settings.UNDELIVERABLE: json.dumps(sorted(plan.undeliverable)),
        }
