"""The files of a run in its folder, besides those of the installation (nats, logs, tokens and keys)."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from demos.compliance import settings
from demos.compliance.installed import Environment
from demos.compliance.plan import Plan
from handrail.v1.decision_pb2 import Choice

NAMES = ("register.sqlite", "plan.json", "copies")


@dataclass(frozen=True, slots=True)
class Files:
    """The files of one run."""

    folder: Path

    @property
    def register(self) -> Path:
        """The register of approvals, a SQLite file."""
        return self.folder / "register.sqlite"

    @property
    def copies(self) -> Path:
        """The environment of the copies to tamper with."""
        return self.folder / "copies"

    @property
    def plan(self) -> Path:
        """The plan, as JSON."""
        return self.folder / "plan.json"

    def write_plan(self, plan: Plan, *, seed: int) -> None:
        """Writes the plan before the run."""
        answers = {key: Choice.Name(choice).removeprefix("CHOICE_") for key, choice in plan.answers.items()}
        tampering = {key: kind.name for key, kind in plan.tampering.items()}
        content = {"seed": seed, "tampering": tampering, "answers": answers}
        self.plan.write_text(json.dumps(content, indent=2) + "\n", "utf-8")

    def environment(self, environments: Iterable[Environment], *, policy: Path) -> Mapping[str, str]:
        """The environment variables of the agents."""
        folders = {each.name: str(each.site.absolute()) for each in environments}
        return {
            settings.ENVIRONMENTS: json.dumps(folders),
            settings.POLICY: str(policy.absolute()),
            settings.REGISTER: str(self.register.absolute()),
        }
