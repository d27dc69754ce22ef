"""Where traces and metrics go if the program has no providers of its own: to a collector, by OTLP."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import cache
from importlib.metadata import entry_points
from threading import Event, Thread

from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.grpc import exporter as otlp
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import _internal as metrics_api
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from slim_actors.errors import ConfigurationError
from slim_actors.middleware import Middleware
from slim_actors.runtime import Runtime

__all__ = ["Exporting", "exporting"]

_FLUSH_WITHIN = 2.0

_logger = logging.getLogger("slim_actors.telemetry")


class Exporting(Middleware):
    """Sees to it that what is recorded goes somewhere, and that what is left goes out when a runtime ends.

    Raises:
        ConfigurationError: A variable names a provider that is not installed.
    """

    def __init__(self) -> None:
        _check_providers()

    def running(self, runtime: Runtime) -> AbstractAsyncContextManager[None]:
        """Set the providers, and flush them at the end."""
        return exporting()


@asynccontextmanager
async def exporting() -> AsyncIterator[None]:
    """Export to a collector while this is held, and at its end wait 2 s at the most for what is left.

    A global provider that the program has set is used as it is, and never replaced.

    Raises:
        ConfigurationError: An ``OTEL_…`` variable cannot be used.
    """
    try:
        exports = _exports()
    except ConfigurationError:
        raise
    except Exception as error:  # noqa: BLE001 (OpenTelemetry raises what it likes for a wrong value)
        why = str(error).rstrip(".") or type(error).__name__
        raise ConfigurationError(f"An OTEL_ variable cannot be used: {why}.") from None
    try:
        yield
    finally:
        await exports.flush()


class _Exports:
    """The providers of this process that are ours: OpenTelemetry has one of each for a whole program."""

    def __init__(self) -> None:
        self._flushes: list[Callable[[], object]] = []
        self._ends: list[Callable[[], object]] = []
        self._flushing: Thread | None = None
        self._is_settled = Event()
        """Whether the last flush is done, or nobody takes what it sends."""
        _check_providers()
        traces = _wanted("TRACES") and isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
        meters = metrics.get_meter_provider()
        measures = _wanted("METRICS") and isinstance(meters, metrics_api._ProxyMeterProvider)  # noqa: SLF001
        if not (traces or measures):
            return
        _check_protocol()
        resource = _resource()
        if traces:
            self._trace(resource)
        if measures:
            self._meter(resource)
        otlp.logger.addFilter(_Once(self._is_settled.set))
        atexit.register(self._end)

    async def flush(self) -> None:
        """Send what is left, unless that takes longer than 2 s or nobody takes it."""
        if self._flushes:
            self._start_flush()
            await asyncio.to_thread(self._is_settled.wait, _FLUSH_WITHIN)

    def _trace(self, resource: Resource) -> None:
        exporter = OTLPSpanExporter()
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(exporter))
        trace.set_tracer_provider(provider)
        self._flushes.append(provider.force_flush)
        self._ends.append(exporter.shutdown)

    def _meter(self, resource: Resource) -> None:
        exporter = OTLPMetricExporter()
        reader = PeriodicExportingMetricReader(exporter)
        provider = MeterProvider([reader], resource, shutdown_on_exit=False)
        metrics.set_meter_provider(provider)
        self._flushes.append(provider.force_flush)
        self._ends.append(exporter.shutdown)

    def _start_flush(self) -> None:
        # In a daemon thread: the SDK heeds no time-out of a flush, and retries for many seconds.
        self._is_settled.clear()
        self._flushing = Thread(target=self._flush, name="slim-actors telemetry", daemon=True)
        self._flushing.start()

    def _flush(self) -> None:
        try:
            for flush in self._flushes:
                flush()
        finally:
            self._is_settled.set()

    def _end(self) -> None:
        """At the end of the process: spans of the user's own may have come after the last runtime."""
        if self._flushing is None or not self._flushing.is_alive():
            self._start_flush()
            self._is_settled.wait(_FLUSH_WITHIN)
        for end in self._ends:
            end()


_exports = cache(_Exports)


class _Once(logging.Filter):
    """Lets the exporters say once, not at every try, that nobody takes their data.

    Args:
        away: Called each time.
    """

    def __init__(self, away: Callable[[], None]) -> None:
        super().__init__()
        self._away = away
        self._was_said = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep a record back, and say it in our own words if it is the first."""
        if record.levelno < logging.WARNING:
            return True
        self._away()
        if not self._was_said:
            self._was_said = True
            _logger.warning(
                "OpenTelemetry data does not get through (this is said once): %s", record.getMessage()
            )
        return False


def _resource() -> Resource:
    resource = Resource.create()
    if str(resource.attributes["service.name"]).startswith("unknown_service"):
        resource = resource.merge(Resource({"service.name": "slim-actors"}))
    # Replicas count the same things under the same names: without this they would overwrite each other.
    return Resource({"service.instance.id": str(uuid.uuid4())}).merge(resource)


def _wanted(signal: str) -> bool:
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    return os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp").strip().lower() != "none"


def _check_providers() -> None:
    # Before OpenTelemetry looks for them, where the program has set none: it says no more than StopIteration.
    given = {"tracer": trace._TRACER_PROVIDER, "meter": metrics_api._METER_PROVIDER}  # noqa: SLF001
    for kind, provider in given.items():
        variable, group = f"OTEL_PYTHON_{kind.upper()}_PROVIDER", f"opentelemetry_{kind}_provider"
        name = os.environ.get(variable)
        if provider is None and name is not None and not entry_points(group=group, name=name):
            raise ConfigurationError(
                f"{variable} is {name!r}, but no package that is installed has such a provider: install it, "
                "or leave the variable out."
            )


def _check_protocol() -> None:
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_PROTOCOL") or "grpc"
    if protocol != "grpc":
        raise ConfigurationError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL is {protocol!r}, but telemetry is exported by 'grpc' here: set "
            "that and a gRPC endpoint, or set a TracerProvider and a MeterProvider in the program."
        )
