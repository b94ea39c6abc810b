"""The jobs of a worker process: pure functions from bytes to bytes, on templates and contracts that callers send."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping

from handrail.analysis.check.typecheck import check
from handrail.mesh import permissions
from handrail.mesh.conditions import environments
from handrail.mesh.contracts import Contracts
from handrail.mesh.template import Template
from handrail.v1.template_pb2 import Severity, StoredTemplate
from handrail.v1.template_service_pb2 import CheckTemplateRequest, CheckTemplateResponse

Job = Callable[[bytes], list[bytes]]


def check_template(data: bytes) -> list[bytes]:
    """The findings on a template: from a CheckTemplateRequest, as a CheckTemplateResponse."""
    request = CheckTemplateRequest.FromString(data)
    findings = check(request.template, Contracts.from_descriptor_set(request.descriptors))
    return [CheckTemplateResponse(findings=findings).SerializeToString()]


def prepare_template(data: bytes) -> list[bytes]:
    """The same, and what is stored of the template: a StoredTemplate with descriptors and digest.

    The StoredTemplate is empty if there are errors. Raises `HandrailError` for contracts that can't be used, and for
    names that the broker's configuration can't hold.
    """
    request = CheckTemplateRequest.FromString(data)
    contracts = Contracts.from_descriptor_set(request.descriptors)
    findings = check(request.template, contracts)
    response = CheckTemplateResponse(findings=findings).SerializeToString()
    if any(finding.severity == Severity.SEVERITY_ERROR for finding in findings):
        return [response, b""]
    # Names that the check lets pass and the broker's configuration can't hold are refused before they are stored.
    permissions.users([request.template])
    descriptors = Template.compile(request.template, contracts).descriptor_set
    # Compiled from what will be stored: nothing gets into the stream that can't be read back.
    digest = Template.compile(request.template, Contracts.from_descriptor_set(descriptors)).digest
    stored = StoredTemplate(template=request.template, descriptors=descriptors, digest=digest)
    return [response, stored.SerializeToString()]


def done() -> None:
    """Frees what a job left behind."""
    environments.forget()
    gc.collect()


JOBS: Mapping[str, Job] = {"check": check_template, "prepare": prepare_template}
"""The jobs, by name."""
