"""What everything that sends messages has in common: a router, a deadline, and what travels along."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from slim_actors.call import Call
from slim_actors.errors import ConfigurationError
from slim_actors.routes import Route

if TYPE_CHECKING:
    from aiostream.core import Stream

    from slim_actors.routing.pin import Pin
    from slim_actors.routing.router import Router

__all__ = ["DEFAULT_TIMEOUT", "Speaker"]

DEFAULT_TIMEOUT = 30.0
"""Seconds until a message that was given no other deadline expires."""


class Speaker(ABC):
    """Something that messages are sent through."""

    __slots__ = ()

    @abstractmethod
    async def _sender(self) -> Router:
        """Give what sends."""

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

        async def run() -> Any:
            router = await self._sender()
            return await router.ask(
                call, route, message, self._expires(_checked(timeout)), self._travelling(), items
            )

        return call.running(run())

    def _tell(self, route: Route | Pin, message: object, timeout: float | None) -> Call[None]:
        call: Call[None] = Call()

        async def run() -> None:
            router = await self._sender()
            await router.tell(call, route, message, self._expires(_checked(timeout)), self._travelling())

        return call.running(run())

    async def _tell_many(self, route: Route | Pin, messages: Iterable[object], timeout: float | None) -> None:
        router = await self._sender()
        await router.tell_many(route, messages, self._expires(_checked(timeout)), self._travelling())

    def _stream(
        self,
        route: Route | Pin,
        message: object,
        timeout: float | None,
        items: AsyncIterable[Any] | None,
    ) -> Stream[Any]:
        # Here, not at the top: most programs have no streams, and need not load what makes them.
        from slim_actors.replies import Replies

        patience = DEFAULT_TIMEOUT if _checked(timeout) is None else timeout
        assert patience is not None, "the default stands in for None"

        async def run() -> AsyncIterator[Any]:
            router = await self._sender()
            expires = self._expires(patience)
            async with aclosing(
                router.stream(route, message, expires, patience, self._travelling(), items)
            ) as replies:
                async for reply in replies:
                    yield reply

        return Replies(run)


def _checked(timeout: float | None) -> float | None:
    if timeout is None or (
        isinstance(timeout, int | float) and not isinstance(timeout, bool) and timeout > 0
    ):
        return timeout
    raise ConfigurationError(f"A timeout of {timeout!r} is not a number of seconds above 0.")
