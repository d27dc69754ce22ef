"""An explicit conversation with one replica."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from slim_actors.call import Call
from slim_actors.errors import ConfigurationError
from slim_actors.routes import Unicast
from slim_actors.speaker import Speaker, sender_by

if TYPE_CHECKING:
    from aiostream.core import Stream

    from slim_actors.messages import Request, StreamRequest
    from slim_actors.names import Address
    from slim_actors.routing.pin import Pin
    from slim_actors.routing.router import Router

__all__ = ["Pinned"]

T = TypeVar("T")


class Pinned(Speaker):
    """A conversation with one replica; made by `Runtime.pin` or `Context.pin`, used with ``async with``.

    Guarantee: everything sent in it goes to the replica that was found on entering, in the order sent. Once
    that replica is lost, or the conversation is left, every further message raises `PeerLost`.

    Example:
        .. code-block:: python

            async with runtime.pin("agntcy/ns/alice") as alice:
                print(alice.peer, await alice.ask("hello"))
    """

    def __init__(self, route: Unicast, speaker: Speaker) -> None:
        self._route = route
        self._speaker = speaker
        self._open: Pin | None = None

    async def __aenter__(self) -> Self:
        expires = self._expires(None)
        sender = await sender_by(self._sender, expires)
        self._open = await sender.pin(self._route, expires)
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
    def ask(
        self,
        message: Request[T],
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Call[T]: ...
    @overload
    def ask(
        self, message: object, *, items: AsyncIterable[Any] | None = None, timeout: float | None = None
    ) -> Call[Any]: ...

    def ask(
        self, message: object, *, items: AsyncIterable[Any] | None = None, timeout: float | None = None
    ) -> Call[Any]:
        """Ask the pinned replica; see `Runtime.ask`."""
        return self._ask(self._pin, message, timeout, items)

    def tell(self, message: object, *, timeout: float | None = None) -> Call[None]:
        """Tell the pinned replica; see `Runtime.tell`. There is no durable one: it is for a name."""
        return self._tell(self._pin, message, timeout)

    async def tell_many(self, messages: Iterable[object], *, timeout: float | None = None) -> None:
        """Tell the pinned replica many messages; see `Runtime.tell_many`."""
        await self._tell_many(self._pin, messages, timeout)

    @overload
    def stream(
        self,
        message: StreamRequest[T] | Request[T],
        *,
        items: AsyncIterable[Any] | None = None,
        timeout: float | None = None,
    ) -> Stream[T]: ...
    @overload
    def stream(
        self, message: object, *, items: AsyncIterable[Any] | None = None, timeout: float | None = None
    ) -> Stream[Any]: ...

    def stream(
        self, message: object, *, items: AsyncIterable[Any] | None = None, timeout: float | None = None
    ) -> Stream[Any]:
        """Stream from the pinned replica; see `Runtime.stream`."""
        return self._stream(self._pin, message, timeout, items)

    @property
    def _pin(self) -> Pin:
        if self._open is None:
            raise ConfigurationError("Open the conversation first: async with runtime.pin(...) as peer.")
        return self._open

    async def _sender(self) -> Router:
        return await self._speaker._sender()  # noqa: SLF001 (what it is pinned for)

    def _expires(self, timeout: float | None) -> float:
        return self._speaker._expires(timeout)  # noqa: SLF001

    def _travelling(self) -> dict[str, Any]:
        return self._speaker._travelling()  # noqa: SLF001
