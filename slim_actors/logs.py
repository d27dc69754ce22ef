"""Logs of commands and replicas: short lines for a person, JSON lines for a program.

Only commands configure logging; a program that uses the library does that itself, and may use what is here.
"""

from __future__ import annotations

import json
import logging
import os
import re
import sys
from datetime import UTC, datetime
from typing import Any

from slim_actors.errors import ConfigurationError

__all__ = ["FORMAT_VARIABLE", "LEVEL_VARIABLE", "JsonFormatter", "configure"]

FORMAT_VARIABLE = "SLIM_ACTORS_LOG_FORMAT"
LEVEL_VARIABLE = "SLIM_ACTORS_LOG_LEVEL"

_FORMATS = ("auto", "json", "text")
_LEVELS = ("debug", "info", "warning", "error", "critical")
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")


def configure(agent: str = "") -> None:
    """Configure the logging of this process, to standard error, as the environment says.

    ``SLIM_ACTORS_LOG_FORMAT`` is ``json``, ``text`` or ``auto`` (the default: text on a terminal, JSON
    elsewhere), ``SLIM_ACTORS_LOG_LEVEL`` a level (``warning`` by default).

    Args:
        agent: Whom lines are about where no handler runs: the one agent of a replica.

    Raises:
        ConfigurationError: One of them is something else.
    """
    form = _choice(FORMAT_VARIABLE, _FORMATS, "auto")
    level = _choice(LEVEL_VARIABLE, _LEVELS, "warning")
    if form == "auto":
        # Closed by whoever started the program, it is None.
        form = "text" if sys.stderr and sys.stderr.isatty() else "json"
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonFormatter(agent))
    else:
        handler.setFormatter(
            logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
        )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)


class JsonFormatter(logging.Formatter):
    """One JSON object a line.

    ``time`` (ISO 8601, UTC), ``level``, ``logger`` and ``message`` are in each; ``agent``, ``message_id``,
    ``trace_id`` and ``span_id`` where they are known; ``exception`` where there is one; and whatever the
    program gave as ``extra``.

    Args:
        agent: Whom lines are about that come from no handler; nobody, if empty.

    Example:
        .. code-block:: python

            handler.setFormatter(JsonFormatter())
    """

    def __init__(self, agent: str = "") -> None:
        super().__init__()
        self._agent = {"agent": agent} if agent else {}

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._agent,
            **_context(),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD and value != ""},
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def _context() -> dict[str, str]:
    """Give the ids of the message that is being handled, and of the trace that it belongs to."""
    ids: dict[str, str] = {}
    # Without the actors in this process, as in its commands, nothing is handled.
    actors = sys.modules.get("slim_actors.context")
    if actors is not None and (ctx := actors.current_context()) is not None:
        ids = {"agent": str(ctx.me), "message_id": ctx.message_id}
        # Without OpenTelemetry here, the trace passes through all the same.
        match = _TRACEPARENT.fullmatch(str(ctx.context.get("traceparent")))
        if match:
            ids |= {"trace_id": match[1], "span_id": match[2]}
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        span = trace.get_current_span().get_span_context()
        if span.is_valid:
            ids |= {"trace_id": f"{span.trace_id:032x}", "span_id": f"{span.span_id:016x}"}
    return ids


def _choice(variable: str, choices: tuple[str, ...], default: str) -> str:
    value = (os.environ.get(variable) or default).lower()
    if value not in choices:
        raise ConfigurationError(f"{variable} is {value!r}, but must be one of {', '.join(choices)}.")
    return value
