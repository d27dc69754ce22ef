"""What everything that sends messages has in common: a router, a deadline, and what travels along."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from slim_actors.call import Call
from slim_actors.checks import is_number
from slim_actors.errors import ConfigurationError, NodeUnreachable
from slim_actors.routes import Route
from slim_actors.routing.items import Items

if TYPE_CHECKING:
    from aiostream.core import Stream

    from slim_actors.routing.pin import Pin
    from slim_actors.routing.router import Router

__all__ = ["DEFAULT_TIMEOUT", "Speaker", "checked", "sender_by"]

DEFAULT_TIMEOUT = 30.0
"""Seconds until a message that was given no other deadline expires."""


class Speaker(ABC):
    """Something that messages are sent through."""

    __slots__ = ()

    @abstractmethod
    async def _sender(self) -> Router:
        """Give what sends."""

    def _ready_sender(self) -> Router | None:
        """Give what sends, if nothing need be waited for to have it."""
        return None

    @abstractmethod
    def _expires(self, timeout: float | None) -> float:
        """Give the deadline for a message, on the clock of the event loop."""

    @abstractmethod
    def _travelling(self) -> dict[str, Any]:
        """Give what travels along with a message."""

    def _ask(
        self,
        route: Route | Pin,
        message: object,
        timeout: float | None,
        items: AsyncIterable[Any] | None,
    ) -> Call[Any]:
        call: Call[Any] = Call()
        expires = self._expires(timeout if timeout is None else checked(timeout))
        flow = None if items is None else Items(items)
        router = self._ready_sender()
        if router is None:
            call.coroutine = self._asked(call, route, message, expires, flow)
        else:
            # As nearly always; without a layer that only passes on what the router gives.
            call.coroutine = router.ask(call, route, message, expires, self._travelling(), flow)
        return call

    async def _asked(
        self,
        call: Call[Any],
        route: Route | Pin,
        message: object,
        expires: float,
        items: Items | None,
    ) -> Any:
        router = await sender_by(self._sender, expires)
        return await router.ask(call, route, message, expires, self._travelling(), items)

    def _tell(self, route: Route | Pin, message: object, timeout: float | None) -> Call[None]:
        call: Call[None] = Call()

        async def run() -> None:
            expires = self._expires(checked(timeout))
            router = self._ready_sender() or await sender_by(self._sender, expires)
            await router.tell(call, route, message, expires, self._travelling())

        return call.running(run())

    async def _tell_many(self, route: Route | Pin, messages: Iterable[object], timeout: float | None) -> None:
        expires = self._expires(checked(timeout))
        router = await sender_by(self._sender, expires)
        await router.tell_many(route, messages, expires, self._travelling())

    def _stream(
        self,
        route: Route | Pin,
        message: object,
        timeout: float | None,
        items: AsyncIterable[Any] | None,
    ) -> Stream[Any]:
        # Here, not at the top: most programs have no streams, and need not load what makes them.
        from slim_actors.replies import Replies, Source

        patience = DEFAULT_TIMEOUT if checked(timeout) is None else timeout
        assert patience is not None, "the default stands in for None"
        if items is not None:
            # Now, and not when somebody iterates: the mistake is here.
            Items(items)

        async def run() -> AsyncIterator[Any]:
            flow = None if items is None else Items(items)
            expires = self._expires(patience)
            router = await sender_by(self._sender, expires)
            async with router.stream(route, message, expires, self._travelling(), flow) as replies:
                while await replies.more(patience):
                    # No coroutine for each: they would cost more than all the rest of it.
                    for reply in replies.ready():
                        yield reply

        return Replies(lambda: Source(run))


async def sender_by(sender: Callable[[], Awaitable[Router]], expires: float) -> Router:
    """Wait for what sends, until a deadline on the clock of the event loop.

    Raises:
        NodeUnreachable: The node was away until then.
    """
    try:
        async with asyncio.timeout_at(expires):
            return await sender()
    except TimeoutError:
        raise NodeUnreachable("The SLIM node was away until the deadline.") from None


def checked(timeout: float | None) -> float | None:
    """Return a timeout if it is one.

    Raises:
        ConfigurationError: It is no number of seconds above 0.
    """
    if timeout is None or (is_number(timeout) and timeout > 0):
        return timeout
    raise ConfigurationError(f"A timeout of {timeout!r} is not a number of seconds above 0.")
