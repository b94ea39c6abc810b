"""Adding services to a server by generic handlers alone.

For each registered method, grpc.aio has a task that waits for a call of it, and goes through all these tasks at each
call. A generic handler needs no task of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import grpc
import grpc.aio


class GenericHandlers:
    """What the generated code needs of a server to add a service to it."""

    def __init__(self, server: grpc.aio.Server) -> None:
        self._server = server

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler[Any, Any]]) -> None:
        """Adds the handlers to the server."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(
        self, service_name: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Adds nothing: the same handlers are added as generic ones."""


def generic_only(server: grpc.aio.Server) -> grpc.aio.Server:
    """Returns what to add services to, in place of the server."""
    return cast("grpc.aio.Server", GenericHandlers(server))
