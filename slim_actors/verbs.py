"""The verbs that `Runtime` and `Context` share: ask, tell, pin."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Generator
from datetime import timedelta
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, overload

from slim_actors.errors import ConfigurationError
from slim_actors.routes import Anycast, Route, Unicast

if TYPE_CHECKING:
    from slim_actors.messages import Request
    from slim_actors.names import Address
    from slim_actors.routing.pin import Pin
    from slim_actors.routing.router import Router

__all__ = ["DEFAULT_TIMEOUT", "Call", "Pinned", "Verbs"]

DEFAULT_TIMEOUT = 30.0
"""Seconds until a message that was given no other deadline expires."""

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Call(Coroutine[Any, Any, R_co], Generic[R_co]):
    """A message under way: await it once for the reply. Then `peer` says who gave it.

    It is a coroutine, so it goes wherever one goes (``asyncio.gather``, ``TaskGroup.create_task``).

    Example:
        .. code-block:: python

            call = runtime.ask(Anycast("agntcy/ns/alice"), "hello")
            reply = await call
            print(reply, "from", call.peer.instance)
    """

    __slots__ = ("_coroutine", "peer")

    def __init__(self) -> None:
        self.peer: Address | None = None
        """The instance that the message went to last; None until it went to one."""
        self._coroutine: Coroutine[Any, Any, R_co]

    def running(self, coroutine: Coroutine[Any, Any, R_co]) -> Self:
        """Give the call its work."""
        self._coroutine = coroutine
        return self

    def __await__(self) -> Generator[Any, Any, R_co]:
        return self._coroutine.__await__()

    def send(self, value: Any) -> Any:
        """See `Coroutine.send`."""
        return self._coroutine.send(value)

    def throw(
        self,
        typ: type[BaseException] | BaseException,
        val: BaseException | object = None,
        tb: TracebackType | None = None,
    ) -> Any:
        """See `Coroutine.throw`."""
        error = typ if isinstance(typ, BaseException) else (val if isinstance(val, BaseException) else typ())
        return self._coroutine.throw(error.with_traceback(tb) if tb else error)

    def close(self) -> None:
        """See `Coroutine.close`."""
        self._coroutine.close()


class _Speaker(ABC):
    """Something that messages are sent through."""

    __slots__ = ()

    @abstractmethod
    async def _sender(self) -> Router:
        """Give what sends."""

    @abstractmethod
    def _expires(self, timeout: float | None) -> float:
        """Give the deadline for a message, on the clock of the event loop."""

    def _ask(self, call: Call[Any], route: Route | Pin, message: object, timeout: float | None) -> Call[Any]:
        async def run() -> Any:
            return await (await self._sender()).ask(call, route, message, self._expires(_checked(timeout)))

        return call.running(run())

    def _tell(
        self, call: Call[None], route: Route | Pin, message: object, timeout: float | None
    ) -> Call[None]:
        async def run() -> None:
            await (await self._sender()).tell(call, route, message, self._expires(_checked(timeout)))

        return call.running(run())


class Verbs(_Speaker):
    """The verbs, a route first."""

    __slots__ = ()

    @overload
    def ask(self, route: Route, message: Request[T], *, timeout: float | None = None) -> Call[T]: ...
    @overload
    def ask(self, route: Route, message: object, *, timeout: float | None = None) -> Call[Any]: ...

    def ask(self, route: Route, message: object, *, timeout: float | None = None) -> Call[Any]:
        """Send a message and await its one reply.

        Guarantee: it ends within the deadline, with the reply or with one of the errors below. A handler runs
        at most once for it, unless it is declared idempotent.

        Args:
            route: Where it goes: `Anycast` or `Unicast`.
            message: A typed message, or a plain value (str, bytes, number, bool, None, list, dict).
            timeout: Seconds until it expires; 30 by default, never more than is left in a handler.

        Raises:
            NoRoute: Nobody answers to the name.
            PeerLost: The replica that had it is gone.
            Expired: The deadline passed.
            RemoteError: The handler raised.
            Busy: Every replica refuses it for now.
            Stopped: The only replica is stopping.
            UnhandledMessage: The agent has no handler for its type.
            MalformedMessage: The message or the reply does not fit the declared type.
            TooLarge: It has more bytes than one message may have.
            NodeUnreachable: The node has been away until the deadline.
            ConfigurationError: The route or the timeout is none.
            TypeError: The message holds something that has no form on the wire.

        Example:
            .. code-block:: python

                reply = await runtime.ask(Anycast("agntcy/ns/alice"), "hello", timeout=5)
        """
        return self._ask(Call(), _route(route), message, timeout)

    def tell(self, route: Route, message: object, *, timeout: float | None = None) -> Call[None]:
        """Send a message that has no reply; done when the receiver's mailbox has accepted it.

        Args:
            route: Where it goes: `Anycast` or `Unicast`.
            message: A typed message or a plain value.
            timeout: Seconds within which it must be accepted, and until which it may wait to be handled.

        Raises:
            DeliveryError: As for `ask`, but nothing of what the handler does.

        Example:
            .. code-block:: python

                await runtime.tell(Anycast("agntcy/ns/log"), "started")
        """
        return self._tell(Call(), _route(route), message, timeout)

    def pin(
        self,
        route: str | Unicast,
        *,
        mls: bool = False,
        max_retries: int = 5,
        retransmit: float | timedelta = 0.5,
    ) -> Pinned:
        """Open an explicit conversation with one replica, for the length of an ``async with``.

        Every message in it goes to the replica that was found at its start. Once that replica is lost, every
        further message raises `PeerLost`.

        Args:
            route: The name of the service, or a whole `Unicast`; then the other arguments are not looked at.
            mls: As in `Unicast`.
            max_retries: As in `Unicast`.
            retransmit: The `timeout` of `Unicast`.

        Raises:
            NoRoute: On entering: nobody answers to the name.
            ConfigurationError: The name or a value is wrong.

        Example:
            .. code-block:: python

                async with runtime.pin("agntcy/ns/alice", mls=True) as alice:
                    await alice.ask("hello")
        """
        if isinstance(route, str):
            route = Unicast(route, mls=mls, max_retries=max_retries, timeout=retransmit)
        return Pinned(route, self._sender, self._expires)


class Pinned(_Speaker):
    """A conversation with one replica; made by `Verbs.pin`, used with ``async with``."""

    def __init__(
        self,
        route: Unicast,
        sender: Callable[[], Awaitable[Router]],
        expires: Callable[[float | None], float],
    ) -> None:
        self._route = route
        self._get_sender = sender
        self._get_expires = expires
        self._open: Pin | None = None

    async def __aenter__(self) -> Self:
        sender = await self._sender()
        self._open = await sender.pin(self._route, self._expires(None))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._open is not None:
            await self._open.close()

    @property
    def peer(self) -> Address:
        """The replica that was found.

        Raises:
            ConfigurationError: The conversation is not open.
        """
        return self._pin.address

    @overload
    def ask(self, message: Request[T], *, timeout: float | None = None) -> Call[T]: ...
    @overload
    def ask(self, message: object, *, timeout: float | None = None) -> Call[Any]: ...

    def ask(self, message: object, *, timeout: float | None = None) -> Call[Any]:
        """Ask the pinned replica; see `Verbs.ask`."""
        return self._ask(Call(), self._pin, message, timeout)

    def tell(self, message: object, *, timeout: float | None = None) -> Call[None]:
        """Tell the pinned replica; see `Verbs.tell`."""
        return self._tell(Call(), self._pin, message, timeout)

    @property
    def _pin(self) -> Pin:
        if self._open is None:
            raise ConfigurationError("Open the conversation first: async with runtime.pin(...) as peer.")
        return self._open

    async def _sender(self) -> Router:
        return await self._get_sender()

    def _expires(self, timeout: float | None) -> float:
        return self._get_expires(timeout)


def _route(route: Route) -> Route:
    if not isinstance(route, Anycast | Unicast):
        raise ConfigurationError(
            f'{route!r} is not a route: write Anycast("org/ns/service") or Unicast("org/ns/service").'
        )
    return route


def _checked(timeout: float | None) -> float | None:
    if timeout is None or (
        isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0
    ):
        return timeout
    raise ConfigurationError(f"A timeout of {timeout!r} is not a number of seconds above 0.")
