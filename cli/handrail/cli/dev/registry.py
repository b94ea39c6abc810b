"""Templates on a running coordinator: stores those of a package, and reads the stored ones."""

from __future__ import annotations

from collections.abc import Iterator

from handrail.cli.client import Client
from handrail.cli.dev.package import Package
from handrail.v1 import template_service_pb2 as pb
from handrail.v1.template_pb2 import FlowTemplate


def activate_templates(client: Client, package: Package) -> list[FlowTemplate]:
    """Stores the package's templates and activates them, unless a newer version is active; returns those that were
    activated.
    """
    activated = []
    active = {each.name: each.version for each in _listed(client) if each.active}
    for template in sorted(package.templates, key=lambda each: each.version):
        put = pb.PutTemplateRequest(template=template, descriptors=package.descriptors)
        client.call(client.templates.PutTemplate, put)
        if active.get(template.name, 0) < template.version:
            activate = pb.ActivateTemplateRequest(
                name=template.name, version=template.version, reason="handrail dev began with it"
            )
            client.call(client.templates.ActivateTemplate, activate)
            activated.append(template)
    return activated


class Stored:
    """Every stored version of every template; each is read once, because versions never change."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, int], FlowTemplate] = {}

    def read(self, client: Client) -> list[FlowTemplate]:
        """Returns the versions stored now."""
        for each in _listed(client):
            key = (each.name, each.version)
            if key not in self._templates:
                request = pb.GetTemplateRequest(name=each.name, version=each.version)
                self._templates[key] = client.call(client.templates.GetTemplate, request).stored.template
        return list(self._templates.values())


def _listed(client: Client) -> Iterator[pb.TemplateSummary]:
    return client.listed(client.templates.ListTemplates, pb.ListTemplatesRequest(), items=lambda page: page.templates)
