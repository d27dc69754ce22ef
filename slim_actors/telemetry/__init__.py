"""OpenTelemetry: traces and metrics of a runtime, as middleware. Needs ``pip install 'slim-actors[otel]'``.

``Runtime(enable_opentelemetry=True)`` puts these middlewares in front of the user's own; nothing in here is
imported otherwise. docs/telemetry.md says which spans and metrics there are.

Raises:
    ConfigurationError: On import: OpenTelemetry is not installed, or an ``OTEL_…`` variable cannot be used.
"""

from slim_actors.errors import ConfigurationError

try:
    from slim_actors.telemetry.export import Exporting, exporting
    from slim_actors.telemetry.metrics import Metering, restarts
    from slim_actors.telemetry.spans import Tracing
except ModuleNotFoundError as error:
    raise ConfigurationError(
        f"OpenTelemetry needs the module {error.name}, which is not installed: "
        "run pip install 'slim-actors[otel]'."
    ) from None
except ValueError as error:
    # Some are read when OpenTelemetry is imported.
    raise ConfigurationError(f"An OTEL_ variable cannot be used: {str(error).rstrip('.')}.") from None

__all__ = ["Exporting", "Metering", "Tracing", "exporting", "restarts"]
