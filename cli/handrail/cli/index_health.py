"""Whether visibility answers questions, as a coordinator would ask them."""

from __future__ import annotations

import asyncio

from handrail.cli.exit_codes import CommandError, Exit
from handrail.cli.index_settings import index_settings
from handrail.cli.listing import as_of_text
from handrail.coordinator.lists.index import Index, IndexSettings
from handrail.index.v1.index_service_pb2 import ListFlowsRequest, Query, Scope
from handrail.mesh import settings as table
from handrail.mesh.errors import HandrailError
from handrail.mesh.setting import Settings
from handrail.v1.listing_pb2 import AsOf

_ONE = ListFlowsRequest(query=Query(scope=Scope(every_type=True), page_size=1))


def require_index(settings: Settings) -> str:
    """Asks visibility, and returns what its index covers. Raises CommandError if it does not answer."""
    wanted = index_settings(settings)
    if wanted is None:
        raise CommandError(f"name its address with {table.VISIBILITY.flag} or {table.VISIBILITY.env}", Exit.USAGE)
    try:
        return as_of_text(asyncio.run(_asked(wanted, settings)))
    except HandrailError as error:
        raise CommandError(f"{wanted.address}: {error.text}", Exit.UNREACHABLE) from None


async def _asked(wanted: IndexSettings, settings: Settings) -> AsOf:
    index = Index(wanted)
    try:
        answer = await index.ask(index.questions.ListFlows, _ONE, settings.value(table.TIMEOUT))
        return answer.page.as_of
    finally:
        await index.close()
