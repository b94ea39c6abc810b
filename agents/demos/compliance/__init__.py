"""The compliance demo: eight agents check every Python distribution of an environment, and approve it or not.

inventory finds distributions; licences, integrity, metadata, binaries and names check them at the same time; register
writes approvals and withdraws them; auditor checks approved files again. `python -m demos.compliance` runs them all;
`handrail dev --agents demos.compliance` keeps them running.
"""

from pathlib import Path

from google.protobuf.message import Message

from compliance.v1 import compliance_pb2

AGENTS: dict[str, str] = {
    name: f"demos.compliance.{name}:agent"
    for name in ("inventory", "licences", "integrity", "metadata", "binaries", "names", "register", "auditor")
}
"""The import path of each agent by name, as `handrail agent run` takes it."""

TEMPLATES: tuple[Path, ...] = (Path(__file__).with_name("approval.yaml"),)
"""The flow types that the agents take part in."""

MESSAGES: tuple[type[Message], ...] = (
    compliance_pb2.DistributionFound,
    compliance_pb2.CheckCompleted,
    compliance_pb2.CheckFailed,
    compliance_pb2.TamperingFound,
    compliance_pb2.DistributionApproved,
    compliance_pb2.ApprovalVerified,
    compliance_pb2.ApprovalWithdrawn,
)
"""The messages that the templates name."""

EXAMPLES: dict[str, Message] = {
    "approval": compliance_pb2.DistributionFound(
        distribution=compliance_pb2.Distribution(
            name="nowhere-to-be-found", version="1.0", environment="here", folder="nowhere_to_be_found-1.0.dist-info"
        )
    )
}
"""An example of a first event, by flow type: `handrail dev` prints the command that sends it."""
