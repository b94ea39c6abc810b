"""Configures tracing and counters of a process from its environment, once."""

from __future__ import annotations

import os
from collections.abc import Mapping

from handrail.mesh.telemetry.recorder import is_counting, is_recording, use, use_counters

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def configure(service: str) -> bool:
    """Starts recording if the environment asks for it. Returns whether it does.

    It does if OTEL_EXPORTER_OTLP_ENDPOINT (or its TRACES form) is set, unless OTEL_SDK_DISABLED=true or
    OTEL_TRACES_EXPORTER=none. `service` is the service name unless OTEL_SERVICE_NAME is set; the exporter uses gRPC
    unless OTEL_EXPORTER_OTLP_PROTOCOL is http/protobuf. OpenTelemetry itself reads all other settings (headers,
    certificates, batches, sampler). Call it once per process, after a fork.

    Counters are exported to OTEL_EXPORTER_OTLP_METRICS_ENDPOINT, or with OTEL_METRICS_EXPORTER=otlp to the endpoint of
    the traces: not every trace collector accepts metrics.

    Raises SettingError if the exporter for gRPC is needed and not installed.
    """
    if not is_counting() and _metrics_wanted(os.environ):
        from handrail.mesh.telemetry.otel_metrics import exporting_counters

        use_counters(exporting_counters(service))
    if not is_recording() and _wanted(os.environ):
        # Imported on demand: importing OpenTelemetry's SDK takes a tenth of a second.
        from handrail.mesh.telemetry.otel import exporting_recorder

        use(exporting_recorder(service))
    return is_recording()


def _wanted(environment: Mapping[str, str]) -> bool:
    return (
        environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and environment.get("OTEL_TRACES_EXPORTER", "otlp") == "otlp"
        and any(environment.get(name) for name in _ENDPOINTS)
    )


def _metrics_wanted(environment: Mapping[str, str]) -> bool:
    exporter = environment.get("OTEL_METRICS_EXPORTER", "")
    return environment.get("OTEL_SDK_DISABLED", "").lower() != "true" and (
        exporter == "otlp" or (bool(environment.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")) and exporter != "none")
    )
