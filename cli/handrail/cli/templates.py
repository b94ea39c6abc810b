"""Templates and contracts from files, and as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import yaml
from google.protobuf.json_format import MessageToDict

from handrail.cli.exits import CommandError, Exit
from handrail.cli.output import Output
from handrail.cli.words import word
from handrail.mesh.contracts import Contracts
from handrail.mesh.errors import HandrailError
from handrail.mesh.template_yaml import load_yaml
from handrail.v1.template_pb2 import Finding, FlowTemplate, Severity


def read_template(path: Path) -> FlowTemplate:
    """The template in a YAML file; CommandError with line and column where it is none."""
    try:
        return load_yaml(path.read_text("utf-8"))
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", Exit.USAGE) from None
    except UnicodeDecodeError:
        raise CommandError(f"{path} is no text in UTF-8", Exit.USAGE) from None
    except HandrailError as error:
        raise CommandError(f"{path}: {error.text} ({error.reason_name})") from None


def read_contracts(path: Path) -> Contracts:
    """The contracts in an image, as `buf build -o FILE` writes one; CommandError where it is none."""
    try:
        return Contracts.from_descriptor_set(path.read_bytes())
    except OSError as error:
        raise CommandError(f"{path} can't be read: {error.strerror}", Exit.USAGE) from None
    except HandrailError as error:
        raise CommandError(f"{path}: {error.text} ({error.reason_name})") from None


def print_findings(output: Output, findings: Iterable[tuple[Path, Finding]]) -> None:
    """Findings for people, each with its remedy."""
    for path, found in findings:
        severity = word(Severity.Name(found.severity), "SEVERITY_").lower()
        output.text(f"{path}: {severity} {found.code} {found.path}: {found.text}")
        if found.remedy:
            output.text(f"    {found.remedy}")


def is_error(finding: Finding) -> bool:
    """Whether it stands in the way of storing the template."""
    return finding.severity == Severity.SEVERITY_ERROR


def to_yaml(template: FlowTemplate) -> str:
    """A template as YAML, in the form that `template put` reads."""
    text: str = yaml.safe_dump(
        MessageToDict(template, preserving_proto_field_name=True), sort_keys=False, allow_unicode=True, width=120
    )
    return text
