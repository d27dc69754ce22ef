"""Flows of items, in either direction: numbered, bounded by grants, with an end or an error.

The receiving end (`Inlet`) says how many items the sending end (`Outlet`) may have sent in all. It says so
anew as items are taken out, so a slow reader holds the producer back and neither end's memory grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from msgspec import Raw

from slim_actors.errors import Expired, PeerLost
from slim_actors.messages import Body

__all__ = ["ITEMS_AHEAD", "Inlet", "Outlet"]

ITEMS_AHEAD = 256
"""Items that may be on their way, or wait to be taken out."""

_GRANT_EVERY = ITEMS_AHEAD // 2
_YIELD_AFTER = 64


class Inlet(AsyncIterator[Any]):
    """The receiving end.

    Args:
        body: Reads the items.
        grant: Tells the other end how many items it may send in all.
        what: Whose items they are, for messages to a person.
    """

    def __init__(self, body: Body, grant: Callable[[int], None], what: str) -> None:
        self._body = body
        self._grant = grant
        self._what = what
        self._items: deque[Raw] = deque()
        self._arrived = 0
        self._taken = 0
        self._granted = ITEMS_AHEAD
        self._end: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes in."""
        return self._end is not None

    @property
    def has_begun(self) -> bool:
        """Whether an item has come in."""
        return self._arrived > 0

    def item(self, number: int, raw: Raw) -> None:
        """Take an item in; one that came before is passed over, and a gap ends the flow."""
        if self.is_over or number < self._arrived:
            return
        if number > self._arrived:
            self.fail(PeerLost(f"Items of {self._what} were lost on their way."))
            return
        if len(self._items) >= 2 * ITEMS_AHEAD:
            self.fail(PeerLost(f"{self._what} sends more items than it may."))
            return
        self._arrived += 1
        self._items.append(raw)
        self._wake()

    def end(self, count: int) -> None:
        """Take note that there were so many items in all."""
        if not self.is_over and count != self._arrived:
            self.fail(PeerLost(f"Items of {self._what} were lost on their way."))
        else:
            self.fail(StopAsyncIteration())

    def fail(self, error: Exception) -> None:
        """Take note that no more items come, and why; those that came before are still given."""
        if not self.is_over:
            self._end = error
            self._wake()

    async def __anext__(self) -> Any:
        while not self._items:
            if self._end is not None:
                raise self._end
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        value = self._body.read(self._items.popleft(), f"An item of {self._what}")
        self._taken += 1
        if self._taken + ITEMS_AHEAD - self._granted >= _GRANT_EVERY and not self.is_over:
            self._granted = self._taken + ITEMS_AHEAD
            self._grant(self._granted)
        return value

    async def next_within(self, seconds: float) -> Any:
        """Give the next item.

        Raises:
            Expired: None came within so many seconds.
            StopAsyncIteration: There are no more.
        """
        if self._items or self.is_over:
            return await anext(self)
        try:
            async with asyncio.timeout(seconds):
                return await anext(self)
        except TimeoutError:
            raise Expired(f"No item of {self._what} came within {seconds:.3g} s.") from None

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Outlet:
    """The sending end.

    Args:
        send: Sends an item with its number.
        granted: How many items may be sent before the first grant.
    """

    def __init__(self, send: Callable[[int, Any], None], granted: int = 0) -> None:
        self._send = send
        self._granted = granted
        self._waiting: asyncio.Future[None] | None = None
        self.count = 0
        """How many items have been sent."""

    def grant(self, total: int) -> None:
        """Let so many items in all be sent."""
        self._granted = max(self._granted, total)
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    async def put(self, value: Any) -> None:
        """Send an item, as soon as the other end has room for it.

        Raises:
            TooLarge: It has more bytes than one message may have.
            TypeError: It holds something that has no form on the wire.
        """
        while self.count >= self._granted:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                await self._waiting
            finally:
                self._waiting = None
        self._send(self.count, value)
        self.count += 1
        if self.count % _YIELD_AFTER == 0:
            # A producer that never waits must not keep the items from going out.
            await asyncio.sleep(0)
