"""Middleware: an object whose hooks see every message of a runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from slim_actors.throttle import Throttle

if TYPE_CHECKING:
    from slim_actors.context import Context
    from slim_actors.deadletters import DeadLetter
    from slim_actors.errors import Denied

__all__ = ["Hooks", "LogFailures", "Middleware"]

_logger = logging.getLogger("slim_actors.middleware")


class Middleware:
    """Hooks that do nothing; override those that you need.

    They are called on the event loop, so they must be quick and must not wait. What one raises is logged, and
    changes nothing for the message.

    Example:
        .. code-block:: python

            class Count(Middleware):
                handled = 0

                def outcome(self, ctx, message, error):
                    self.handled += error is None

            runtime = Runtime(middleware=[Count()])
    """

    def sending(self, route: Any, message: Any, context: dict[str, Any]) -> None:
        """A message is about to be sent. What is put into ``context`` travels with it, through every hop."""

    def received(self, ctx: Context, message: Any) -> None:
        """A message is about to be put into the mailbox."""

    def handling(self, ctx: Context, message: Any) -> None:
        """A handler is about to be called."""

    def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
        """A handler is done: with a reply, or with the error that its caller gets."""

    def denied(self, ctx: Context, error: Denied) -> None:
        """A message was refused because of who sent it; nobody has read it."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """A message ended without anybody to tell."""


class Hooks:
    """The hooks of several middlewares, but for those that do nothing.

    Args:
        middleware: Called in this order.
    """

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        middleware = tuple(middleware)
        self.sending = self._overridden(middleware, "sending")
        self.received = self._overridden(middleware, "received")
        self.handling = self._overridden(middleware, "handling")
        self.outcome = self._overridden(middleware, "outcome")
        self.denied = self._overridden(middleware, "denied")
        self.dead_letter = self._overridden(middleware, "dead_letter")

    @staticmethod
    def call(hooks: tuple[Any, ...], *arguments: Any) -> None:
        """Call some hooks, whatever they do."""
        for hook in hooks:
            try:
                hook(*arguments)
            except Exception:
                _logger.exception("%s failed", hook.__qualname__)

    @staticmethod
    def _overridden(middleware: tuple[Middleware, ...], name: str) -> tuple[Any, ...]:
        return tuple(
            getattr(one, name)
            for one in middleware
            if getattr(type(one), name) is not getattr(Middleware, name)
        )


class LogFailures(Middleware):
    """Logs what nobody else would show: failing handlers, denied calls, and dead letters."""

    def __init__(self) -> None:
        self._time_to_log = Throttle()

    def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
        """Log a handler that raised."""
        cause = error.__cause__ if error is not None else None
        if cause is not None:
            ctx.logger.error("%s failed on %s", ctx.me, type(message).__name__, exc_info=cause)

    def denied(self, ctx: Context, error: Denied) -> None:
        """Log a denied call: one line a minute for each sender, however many it sends."""
        if self._time_to_log((ctx.me, ctx.sender.subject or ctx.sender.name, ctx.sender.issuer)):
            ctx.logger.warning("Denied: %s", error)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Log a dead letter."""
        logging.getLogger("slim_actors.dead_letters").warning("%s", letter)
