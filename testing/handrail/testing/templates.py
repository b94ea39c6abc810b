"""Templates for tests, read and checked as in the coordinator."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from google.protobuf.message import Message

from handrail.analysis.check.typecheck import check
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import TemplateRefused
from handrail.mesh.template import Template
from handrail.mesh.template.yaml_reader import read_yaml
from handrail.v1.template_pb2 import Severity


def load_template(source: str | Path, messages: Iterable[type[Message]]) -> Template:
    """Reads a template from YAML text or a YAML file; its messages are these generated classes.

    Raises HandrailError if it can't be read, and TemplateRefused with the findings of the flow type-check.
    """
    text = source.read_text("utf-8") if isinstance(source, Path) else source
    proto, places = read_yaml(text)
    contracts = Contracts.from_messages(messages)
    findings = places.located(check(proto, contracts))
    errors = [finding for finding in findings if finding.severity == Severity.SEVERITY_ERROR]
    if errors:
        raise TemplateRefused(proto.name, errors)
    return Template.compile(proto, contracts)
