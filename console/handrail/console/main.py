"""The process `handrail console`: serves pages until SIGTERM or SIGINT."""

from __future__ import annotations

import socket
from collections.abc import Callable

import uvicorn

from handrail.console.app import create_app
from handrail.console.options import Options

_MOST_REQUESTS = 500
_BACKLOG = 128
_GRACE_SECONDS = 2


async def run_console(options: Options, *, on_ready: Callable[[int], None]) -> None:
    """Serves until SIGTERM or SIGINT; open streams then get two seconds.

    Calls `on_ready` with the port once browsers can connect. Raises OSError if it can't listen.
    """
    config = uvicorn.Config(
        create_app(options),
        ssl_certfile=options.certificate,
        ssl_keyfile=options.key,
        log_config=None,
        access_log=False,
        server_header=False,
        # Who the client is, only a trusted proxy may say, and it is said in web/client_address.py.
        proxy_headers=False,
        ws="none",
        lifespan="on",
        limit_concurrency=_MOST_REQUESTS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    with _listening(options.listen) as listener:
        on_ready(listener.getsockname()[1])
        await uvicorn.Server(config).serve([listener])


def _listening(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, backlog=_BACKLOG)
