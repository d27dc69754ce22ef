"""An OpenTelemetry collector in memory: a real gRPC server that keeps what comes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc  # type: ignore[import-untyped]
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics_pb
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2_grpc as metrics_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as trace_pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as trace_grpc


class Collector:
    """Keeps every span and metric that is exported to it."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.metrics: list[Any] = []
        self.services: set[str] = set()
        self._server = grpc.server(ThreadPoolExecutor(4))
        trace_grpc.add_TraceServiceServicer_to_server(_Traces(self), self._server)  # type: ignore[no-untyped-call]
        metrics_grpc.add_MetricsServiceServicer_to_server(_Metrics(self), self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.endpoint = f"http://127.0.0.1:{port}"
        self._server.start()

    @property
    def env(self) -> dict[str, str]:
        """The variables with which a command exports to it."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_METRIC_EXPORT_INTERVAL": "200",
            "OTEL_BSP_SCHEDULE_DELAY": "100",
            "no_proxy": "127.0.0.1",
        }

    def points(self, name: str) -> Iterator[dict[str, Any]]:
        """Give the points of a metric as attributes, and ``value`` or ``count``."""
        for metric in list(self.metrics):
            if metric.name == name:
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    value = point.count if hasattr(point, "count") else point.as_int
                    yield {"value": value, **attributes(point)}

    def stop(self) -> None:
        self._server.stop(None).wait()


class _Traces(trace_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        for resource in request.resource_spans:
            self._collector.services.add(attributes(resource.resource)["service.name"])
            for scope in resource.scope_spans:
                self._collector.spans.extend(scope.spans)
        return trace_pb.ExportTraceServiceResponse()


class _Metrics(metrics_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
        for resource in request.resource_metrics:
            for scope in resource.scope_metrics:
                self._collector.metrics.extend(scope.metrics)
        return metrics_pb.ExportMetricsServiceResponse()


def attributes(described: Any) -> dict[str, Any]:
    """Give the attributes of a span, a point or a resource."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in described.attributes}


Tree = tuple[str, list["Tree"]]


def tree(spans: Iterable[tuple[str, bytes | int, bytes | int | None]]) -> list[Tree]:
    """Give spans (name, id, the parent's id) as names with the names below them, in alphabetical order."""
    spans = list(spans)

    def below(parent: bytes | int | None) -> list[Tree]:
        return sorted((name, below(span)) for name, span, its in spans if (its or None) == parent)

    return below(None)
