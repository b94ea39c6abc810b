"""The research demo: agents read a folder of Python source, measure it, and propose what to change.

discovery finds the files, analysis measures each file, planning collects the measures and proposes a plan, execution
writes the report after a maintainer has answered. `python -m demos.research` runs them all;
`handrail dev --agents demos.research` keeps them running.
"""

from pathlib import Path

from google.protobuf.message import Message

from research.v1 import research_pb2

AGENTS: dict[str, str] = {
    name: f"demos.research.{name}:agent" for name in ("discovery", "analysis", "planning", "execution")
}
"""The import path of each agent by name, as `handrail agent run` takes it."""

TEMPLATES: tuple[Path, ...] = (Path(__file__).with_name("research.yaml"),)
"""The flow types that the agents take part in."""

MESSAGES: tuple[type[Message], ...] = (
    research_pb2.ResearchRequested,
    research_pb2.FileFound,
    research_pb2.DiscoveryCompleted,
    research_pb2.FileAnalysed,
    research_pb2.ChangePlanProposed,
    research_pb2.ReportWritten,
    research_pb2.ReportRemoved,
)
"""The messages that the templates name."""

EXAMPLES: dict[str, Message] = {
    "research": research_pb2.ResearchRequested(name="demos", folder=str(Path(__file__).parents[1]))
}
"""An example of a first event, by flow type: `handrail dev` prints the command that sends it."""
