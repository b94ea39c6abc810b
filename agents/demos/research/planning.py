"""The agent that collects the measures of all files, and proposes changes."""

from collections.abc import Sequence

from demos.research.measure import LONG
from handrail.agents import Agent
from research.v1.research_pb2 import ChangePlanProposed, DiscoveryCompleted, FileAnalysed, Totals

agent = Agent("planning", validate_inbound=True)

_MOST_REMOVED = 500
_MOST_SIMPLIFIED = 10


@agent.on_all(DiscoveryCompleted, FileAnalysed)
def plan(discovery: DiscoveryCompleted, files: list[FileAnalysed]) -> ChangePlanProposed:
    """Proposes to remove dead imports, and to simplify the most complex functions."""
    in_order = sorted(files, key=lambda each: each.path)
    remove = [dead for each in in_order for dead in each.dead_imports][:_MOST_REMOVED]
    standing_out = [function for each in in_order for function in each.standing_out]
    changed = {dead.path for dead in remove}
    return ChangePlanProposed(
        name=discovery.name,
        folder=discovery.folder,
        totals=totals(in_order),
        remove=remove,
        simplify=sorted(standing_out, key=lambda each: (-each.complexity, each.path))[:_MOST_SIMPLIFIED],
        digests={each.path: each.digest for each in in_order if each.path in changed},
    )


def totals(files: Sequence[FileAnalysed]) -> Totals:
    """The sums over all files."""
    return Totals(
        files=len(files),
        problems=sum(bool(each.problem) for each in files),
        lines=sum(each.lines for each in files),
        functions=sum(each.functions for each in files),
        decisions=sum(each.decisions for each in files),
        complexity=sum(each.complexity for each in files),
        long_functions=sum(function.lines > LONG for each in files for function in each.standing_out),
    )


if __name__ == "__main__":
    agent.run()
