"""Middleware: an object whose hooks see every message of a runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager, nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from slim_actors.errors import ConfigurationError
from slim_actors.throttle import Throttle

if TYPE_CHECKING:
    from slim_actors.call import Call
    from slim_actors.context import Context
    from slim_actors.deadletters import DeadLetter
    from slim_actors.errors import Denied
    from slim_actors.names import Address
    from slim_actors.routes import Route
    from slim_actors.runtime import Runtime

__all__ = ["NOBODY", "Hooks", "LogFailures", "Middleware", "Sending", "Verb"]

_logger = logging.getLogger("slim_actors.middleware")

Verb = Literal["ask", "tell", "stream"]

NOBODY: AbstractContextManager[object] = nullcontext()
"""What is held around something where no hook wants to know."""


class Sending(Struct, eq=False):
    """A message on its way to its outcome, at its sender's end.

    Attributes:
        verb: How it is sent.
        route: Where it goes.
        message: The message.
        message_id: The receiver's `Context.message_id`.
        sender: Who sends it.
        context: What travels along with it, through every hop: values that msgpack knows, by names of yours.
    """

    verb: Verb
    route: Route
    message: Any
    message_id: str
    sender: Address
    context: dict[str, Any]
    _call: Call[Any]

    @property
    def peer(self) -> Address | None:
        """The instance that the message went to last; None until it went to one."""
        return self._call.peer


class Middleware:
    """Hooks that do nothing; override those that you need.

    They are called on the event loop, so they must be quick and must not wait. What one raises is logged, and
    changes nothing for the message.

    `sending` and `handling` may give a context manager (write ``@contextmanager`` above them): it is held
    until the message has its outcome, and an error is raised in it where it yields. It cannot swallow it.

    Example:
        .. code-block:: python

            class Times(Middleware):
                @contextmanager
                def handling(self, ctx, message):
                    began = perf_counter()
                    try:
                        yield
                    finally:
                        print(type(message).__name__, perf_counter() - began)

            runtime = Runtime(middleware=[Times()])
    """

    def running(self, runtime: Runtime) -> AbstractAsyncContextManager[object] | None:
        """Give an async context manager (``@asynccontextmanager``) to be held while the runtime is open.

        It is entered when the runtime is connected, and left when its agents have stopped. What it raises
        on entering is raised by ``async with Runtime()``.
        """

    def sending(self, sending: Sending) -> AbstractContextManager[object] | None:
        """A message is about to be sent. What is put into ``sending.context`` travels with it.

        A context manager is held until the reply, the acceptance or the last item has come, or the error. It
        must not set context variables, for a stream would leave them to whoever reads it.
        """

    def received(self, ctx: Context, message: Any) -> None:
        """A message is about to be put into the mailbox."""

    def handling(self, ctx: Context, message: Any) -> AbstractContextManager[object] | None:
        """A handler is about to be called.

        A context manager is held while the handler runs, in its task: context variables set in it are the
        handler's. What is raised in it is what the handler raised; `asyncio.CancelledError` if the message
        was cancelled or its deadline passed.
        """

    def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
        """A message that was `received` has ended: with a reply, or with the error that its caller gets."""

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
        for one in middleware:
            if not isinstance(one, Middleware):
                raise ConfigurationError(f"{one!r} is no middleware: give instances of Middleware.")
        self.running = self._overridden(middleware, "running")
        self.sending = self._overridden(middleware, "sending")
        self.received = self._overridden(middleware, "received")
        self.handling = self._overridden(middleware, "handling")
        self.outcome = self._overridden(middleware, "outcome")
        talkative = (one for one in middleware if not isinstance(one, LogFailures))
        self.replied = self._overridden(tuple(talkative), "outcome")
        """Those for an outcome that is a reply: who logs failures has nothing to do for most messages."""
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
    def around(hooks: tuple[Any, ...], *arguments: Any) -> AbstractContextManager[object]:
        """Give what calls some hooks on entering, and holds the context managers that they give."""
        return _Around(hooks, arguments) if hooks else NOBODY

    @staticmethod
    def _overridden(middleware: tuple[Middleware, ...], name: str) -> tuple[Any, ...]:
        return tuple(
            getattr(one, name)
            for one in middleware
            if getattr(type(one), name) is not getattr(Middleware, name)
        )


class _Around:
    """Holds the context managers of several hooks, whatever they do; the first hook's is the outermost."""

    __slots__ = ("_arguments", "_held", "_hooks")

    def __init__(self, hooks: tuple[Any, ...], arguments: tuple[Any, ...]) -> None:
        self._hooks = hooks
        self._arguments = arguments
        self._held: list[tuple[Any, AbstractContextManager[object]]] = []

    def __enter__(self) -> None:
        for hook in self._hooks:
            try:
                manager = hook(*self._arguments)
                if manager is not None:
                    manager.__enter__()
                    self._held.append((hook, manager))
            except Exception:
                _logger.exception("%s failed", hook.__qualname__)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for hook, manager in reversed(self._held):
            try:
                manager.__exit__(kind, error, traceback)
            except Exception:
                _logger.exception("%s failed", hook.__qualname__)


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
