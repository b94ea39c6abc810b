"""The plan of a run: the people's answers, and the agent that is killed. Drawn from the seed before the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from demos.stage.desk import Vote
from demos.stage.killer import Kill

MAINTAINERS = ("anna", "ben")


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to each research's proposal by name, and the kill."""

    votes: Mapping[str, Vote]
    kill: Kill

    @classmethod
    def draw(cls, names: Sequence[str], seed: int) -> "Plan":
        """Draws a plan: one proposal is refused if there are two or more; analysis is killed after the first end."""
        random = Random(seed)
        refused = random.choice(list(names)) if len(names) > 1 else ""
        votes = {name: Vote(random.choice(MAINTAINERS), name != refused) for name in names}
        return cls(votes, Kill("analysis", 1 if len(names) > 1 else 0))
