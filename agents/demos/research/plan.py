"""What is to happen in a run: who answers what, and which agent is killed. Drawn from the seed before it runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

from demos.stage.desk import Vote
from demos.stage.killer import Kill

MAINTAINERS = ("anna", "ben")


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to each research's proposal, by its name, and the kill."""

    votes: Mapping[str, Vote]
    kill: Kill

    @classmethod
    def draw(cls, names: Sequence[str], seed: int) -> "Plan":
        """Draw a plan: one proposal is refused where there are two or more; analysis is killed after the first end."""
        random = Random(seed)
        refused = random.choice(list(names)) if len(names) > 1 else ""
        votes = {name: Vote(random.choice(MAINTAINERS), name != refused) for name in names}
        return cls(votes, Kill("analysis", 1 if len(names) > 1 else 0))
