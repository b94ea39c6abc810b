"""The agent that finds the files of a folder: one event for each file, and one with their number."""

from pathlib import Path

from demos.research.source import MAX_FILES, SourceError, python_files
from handrail.agents import Agent, NonRetryable
from research.v1.research_pb2 import DiscoveryCompleted, FileFound, ResearchRequested

agent = Agent("discovery", validate_inbound=True)


@agent.on(ResearchRequested)
def discover(event: ResearchRequested) -> list[FileFound | DiscoveryCompleted]:
    """Finds the files; files beyond the limit are only counted, for the report."""
    try:
        paths = python_files(Path(event.folder))
    except (SourceError, OSError) as error:
        raise NonRetryable(f"research {event.name}: {error}") from error
    taken = paths[:MAX_FILES]
    found = [FileFound(name=event.name, folder=event.folder, path=path) for path in taken]
    left_out = len(paths) - len(taken)
    done = DiscoveryCompleted(name=event.name, folder=event.folder, files=len(taken), left_out=left_out)
    return [*found, done]


if __name__ == "__main__":
    agent.run()
