"""Finds templates by name, as far as the current caller may see them."""

from __future__ import annotations

from collections.abc import Callable

from handrail.coordinator.api import authorization
from handrail.mesh.errors import HandrailError
from handrail.mesh.streams.catalog import Catalog, no_version
from handrail.mesh.template import Template
from handrail.v1.error_reason_pb2 import ErrorReason


class TemplateFinder:
    """Looks templates up for the current RPC. A flow type that its caller may not read looks like a missing one."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    async def version(self, name: str, version: int) -> Template:
        """Returns a version; raises TEMPLATE_NOT_FOUND, or MISSING_ROLE."""
        authorization.require_on(name, no_version(name, version))
        return await self._catalog.template(name, version)

    async def active(self, name: str) -> Template:
        """Returns the active version, as the stream's leader knows it; raises FLOW_TYPE_NOT_FOUND, or MISSING_ROLE.

        The error names the active flow types that the caller may read.
        """
        await self._catalog.refresh_from_leader()
        authorization.require_on(name, self._no_active(name))
        if not self._catalog.active_version(name):
            raise self._no_active(name)
        return await self._catalog.active(name)

    async def any_version(self, name: str) -> None:
        """Raises TEMPLATE_NOT_FOUND if no version is stored, and names the flow types that the caller may read."""
        await self._catalog.refresh_from_leader()
        missing = HandrailError(
            ErrorReason.ERROR_REASON_TEMPLATE_NOT_FOUND,
            f"no template {name} is stored; stored are: {self._readable(lambda _: True)}",
            template=name,
        )
        authorization.require_on(name, missing)
        if not self._catalog.versions(name):
            raise missing

    def _no_active(self, name: str) -> HandrailError:
        return HandrailError(
            ErrorReason.ERROR_REASON_FLOW_TYPE_NOT_FOUND,
            f"no version of flow type {name} is active; active are: "
            f"{self._readable(lambda known: bool(self._catalog.active_version(known)))}",
            flow_type=name,
        )

    def _readable(self, wanted: Callable[[str], bool]) -> str:
        caller = authorization.current_caller()
        return ", ".join(name for name in self._catalog.names() if caller.reads(name) and wanted(name)) or "none"
