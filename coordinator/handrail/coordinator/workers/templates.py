"""Templates that callers send, checked and prepared in a worker process."""

from __future__ import annotations

from collections.abc import Sequence

from handrail.coordinator.workers.pool import WorkerPool
from handrail.mesh.errors import TemplateRefused
from handrail.v1.template_pb2 import Finding, FlowTemplate, Severity, StoredTemplate
from handrail.v1.template_service_pb2 import CheckTemplateRequest, CheckTemplateResponse


async def prepared_template(
    workers: WorkerPool, template: FlowTemplate, descriptors: bytes, *, caller: str
) -> tuple[Sequence[Finding], StoredTemplate]:
    """The warnings on a template, and what is stored of it: with the files that it needs, and its digest.

    Raises TEMPLATE_REFUSED if there are errors, MALFORMED or TOO_LARGE for contracts that can't be used, and
    LIMIT_EXCEEDED.
    """
    request = CheckTemplateRequest(template=template, descriptors=descriptors)
    response, stored = await workers.run("prepare", request.SerializeToString(), caller=caller)
    findings = CheckTemplateResponse.FromString(response).findings
    if any(finding.severity == Severity.SEVERITY_ERROR for finding in findings):
        raise TemplateRefused(template.name, findings)
    return findings, StoredTemplate.FromString(stored)
