"""The names of OpenTelemetry's semantic conventions for messaging, and our own beside them."""

from __future__ import annotations

import asyncio
from typing import Any

from opentelemetry.util.types import AttributeValue

from slim_actors.context import Context
from slim_actors.errors import DeliveryError, Expired
from slim_actors.messages import type_name
from slim_actors.middleware import Sending

__all__ = ["ERROR_TYPE", "OUTCOME", "Attributes", "handled", "of_context", "of_name", "of_sending", "outcome"]

Attributes = dict[str, AttributeValue]

ERROR_TYPE = "error.type"
OUTCOME = "slim_actors.outcome"


def of_name(name: str) -> Attributes:
    """Describe whom something is about."""
    return {"messaging.system": "slim", "messaging.destination.name": name}


def of_sending(sending: Sending) -> Attributes:
    """Describe what a message is, at its sender's end; few different ones, as metrics need them."""
    return {
        **of_name(sending.route.name),
        "messaging.operation.name": sending.verb,
        "messaging.operation.type": "send",
        "slim_actors.message.type": type_name(type(sending.message)),
    }


def of_context(ctx: Context, message: Any) -> Attributes:
    """Describe what a message is, at its receiver's end."""
    return {
        **of_name(ctx.me.name),
        "messaging.operation.name": "handle",
        "messaging.operation.type": "process",
        "slim_actors.message.type": type_name(type(message)),
    }


def handled(ctx: Context, error: BaseException) -> BaseException:
    """Give the reason why a handler ended: a deadline that passed looks like a cancellation to it."""
    return error if ctx.remaining else Expired("The deadline passed while the message was handled.")


def outcome(error: BaseException | None) -> Attributes:
    """Describe how a message ended.

    ``ok``, the code of a `DeliveryError` as it is on the wire, ``cancelled`` (also a stream that its reader
    left), or ``failed``: the handler raised.
    """
    if error is None:
        return {OUTCOME: "ok"}
    if isinstance(error, asyncio.CancelledError | GeneratorExit):
        return {OUTCOME: "cancelled"}
    code = error.code if isinstance(error, DeliveryError) else DeliveryError.code
    return {OUTCOME: code, ERROR_TYPE: type(error).__qualname__}
