"""How traces and counters travel to their collector: OTLP, over gRPC or HTTP."""

from __future__ import annotations

import os
from importlib.util import find_spec

from handrail.mesh.setting import SettingError

_HTTP = "http/protobuf"
_OF_ALL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def over_http(signal: str) -> bool:
    """Whether a signal, `TRACES` or `METRICS`, goes over HTTP. OpenTelemetry's default is gRPC.

    Raises SettingError if it goes over gRPC and the exporter for that is not installed.
    """
    own = f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"
    protocol = os.environ.get(own) or os.environ.get(_OF_ALL) or "grpc"
    if protocol == _HTTP:
        return True
    if find_spec("opentelemetry.exporter.otlp.proto.grpc") is None:
        raise SettingError(
            f"{signal.lower()} can't be exported over gRPC: set {_OF_ALL}={_HTTP}, "
            "or python -m pip install 'handrail[otlp-grpc]'"
        )
    return False
