"""Counters with OpenTelemetry's metrics: loaded only if they are exported."""

from __future__ import annotations

import os
from collections.abc import Mapping

from opentelemetry.metrics import Counter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricExporter, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource

from handrail.mesh.telemetry.protocol import over_http
from handrail.mesh.telemetry.recorder import Attribute


class OtelCounters:
    """Counts with an OpenTelemetry provider; names and attributes get the prefix `handrail.`."""

    def __init__(self, provider: MeterProvider) -> None:
        self._provider = provider
        self._meter = provider.get_meter("handrail")
        self._counters: dict[str, Counter] = {}

    def add(self, name: str, amount: int, attributes: Mapping[str, Attribute]) -> None:
        """Adds to the counter `handrail.<name>`."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = self._meter.create_counter(f"handrail.{name}")
        counter.add(amount, {f"handrail.{key}": value for key, value in attributes.items()})

    def close(self) -> None:
        """Exports pending counts and waits for the export."""
        self._provider.shutdown()


def exporting_counters(service: str) -> OtelCounters:
    """Counters that are exported as configured by the OTEL_* environment."""
    name = os.environ.get("OTEL_SERVICE_NAME") or service
    reader = PeriodicExportingMetricReader(_exporter())
    return OtelCounters(MeterProvider([reader], resource=Resource.create({SERVICE_NAME: name}), shutdown_on_exit=False))


def _exporter() -> MetricExporter:
    if over_http("METRICS"):
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

        return HttpExporter()
    from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter

    return OTLPMetricExporter()
