"""Spans: one while a message is sent, one while it waits in a mailbox, one while it is handled."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from time import time_ns
from typing import Any

from opentelemetry import context as otel
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from slim_actors.context import Context
from slim_actors.deadletters import DeadLetter
from slim_actors.messages import type_name
from slim_actors.middleware import Middleware, Sending
from slim_actors.telemetry.conventions import Attributes, handled, of_context, of_name, of_sending, outcome

__all__ = ["Tracing"]

_NANOSECONDS = 1_000_000_000
_MOST_CHARACTERS = 8192

_SENDING = {"ask": SpanKind.CLIENT, "tell": SpanKind.PRODUCER, "stream": SpanKind.CLIENT}
_HANDLING = {"ask": SpanKind.SERVER, "tell": SpanKind.CONSUMER, "stream": SpanKind.SERVER}


class Tracing(Middleware):
    """Makes spans, and sends the trace along with each message, as W3C ``traceparent`` and its companions.

    Args:
        tracer_provider: Where the spans go; by default the program's global provider.

    Example:
        .. code-block:: python

            runtime = Runtime(middleware=[Tracing(my_tracer_provider)])
    """

    def __init__(self, tracer_provider: TracerProvider | None = None) -> None:
        self._tracer = trace.get_tracer("slim_actors", tracer_provider=tracer_provider)

    @contextmanager
    def sending(self, sending: Sending) -> Iterator[None]:
        """Hold a span until the message has its outcome; its parent is whatever the sender is doing."""
        here = otel.get_current()
        if not trace.get_current_span(here).get_span_context().is_valid:
            # Sent for a message whose trace passes through without being continued here.
            here = _extracted(sending.context, here)
        kind = _SENDING[sending.verb]
        span = self._tracer.start_span(
            f"{sending.verb} {sending.route.name}",
            here,
            kind,
            {
                **of_sending(sending),
                "messaging.message.id": sending.message_id,
                "messaging.client.id": str(sending.sender),
                "slim_actors.route": type(sending.route).__name__,
            },
        )
        if span.get_span_context().is_valid:
            for field in propagate.get_global_textmap().fields:
                sending.context.pop(field, None)
            propagate.inject(sending.context, trace.set_span_in_context(span, here))
        try:
            yield
        except BaseException as error:
            _ended(span, error)
            raise
        else:
            _ended(span, None)
        finally:
            if sending.peer is not None:
                span.set_attribute("slim_actors.peer", str(sending.peer))
            span.end()

    @contextmanager
    def handling(self, ctx: Context, message: Any) -> Iterator[None]:
        """Make a span of the time in the mailbox, and hold one that is current while the handler runs."""
        parent = _extracted(ctx.context, otel.Context())
        attributes: Attributes = {
            **of_context(ctx, message),
            "messaging.message.id": ctx.message_id,
            "messaging.client.id": str(ctx.me),
            "slim_actors.peer": str(ctx.sender),
        }
        now = time_ns()
        if ctx.message_id:
            self._waited(ctx, parent, attributes, now)
        span = self._tracer.start_span(
            f"handle {ctx.me.name}", parent, _HANDLING[ctx.verb], attributes, start_time=now
        )
        token = otel.attach(trace.set_span_in_context(span, parent))
        try:
            yield
        except BaseException as error:
            span.record_exception(error)
            _ended(span, handled(ctx, error))
            raise
        else:
            _ended(span, None)
        finally:
            otel.detach(token)
            span.end()

    def dead_letter(self, letter: DeadLetter) -> None:
        """Make a span of no length, so that the trace says where the message ended."""
        attributes: Attributes = {
            **of_name(letter.recipient.name),
            "messaging.operation.name": "dead_letter",
            "messaging.client.id": str(letter.recipient),
            "slim_actors.message.type": type_name(type(letter.message)),
        }
        parent = _extracted(letter.context, otel.Context())
        span = self._tracer.start_span(
            f"dead_letter {letter.recipient.name}", parent, SpanKind.INTERNAL, attributes
        )
        _ended(span, letter.cause)
        span.end()

    def _waited(self, ctx: Context, parent: otel.Context, attributes: Attributes, now: int) -> None:
        attributes = {**attributes, "messaging.operation.name": "queue"}
        del attributes["messaging.operation.type"]
        began = now - int(ctx.waited * _NANOSECONDS)
        queue = self._tracer.start_span(
            f"queue {ctx.me.name}", parent, SpanKind.INTERNAL, attributes, start_time=began
        )
        queue.end(now)


def _extracted(travelling: dict[str, Any], base: otel.Context) -> otel.Context:
    """Read the trace that came along with a message; a peer may have put anything there."""
    carrier = {
        field: value
        for field in propagate.get_global_textmap().fields
        if isinstance(value := travelling.get(field), str) and len(value) <= _MOST_CHARACTERS
    }
    return propagate.extract(carrier, base) if carrier else base


def _ended(span: Span, error: BaseException | None) -> None:
    attributes = outcome(error)
    span.set_attributes(attributes)
    if len(attributes) > 1:
        span.set_status(Status(StatusCode.ERROR, str(error)))
