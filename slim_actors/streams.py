"""Flows of items, in either direction: numbered, bounded by grants, with an end or an error.

The receiving end (`Inlet`) says how many items the sending end (`Outlet`) may have sent in all. It says so
anew as items are taken out, so a slow reader holds the producer back and neither end's memory grows.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from math import inf
from typing import Any

from attrs import frozen
from msgspec import Raw

from slim_actors.errors import Expired, PeerLost
from slim_actors.limits import no_account
from slim_actors.messages import Body

__all__ = ["ITEMS_AHEAD", "Inlet", "Outlet"]

ITEMS_AHEAD = 256
"""Items that may be on their way, or wait to be taken out."""
FIRST_ITEMS = 8
"""Items that may be sent before it is known how large they are."""

_BYTES_AHEAD = 8 * 1024 * 1024
_GRANT_AFTER = 1.0
_YIELD_AFTER = 64


@frozen
class Patience:
    """How long one end of a flow waits for the other while it keeps others waiting.

    Attributes:
        seconds: After so many it is over, if
        holds_up: says that others wait.
    """

    seconds: float = inf
    holds_up: Callable[[], bool] = bool

    async def wait(self, change: asyncio.Future[None]) -> bool:
        """Wait for a change; give False when patience is at its end."""
        if self.seconds == inf:
            await change
            return True
        while not change.done():
            await asyncio.wait([change], timeout=self.seconds)
            if not change.done() and self.holds_up():
                return False
        return True


_PATIENT = Patience()


class Inlet(AsyncIterator[Any]):
    """The receiving end.

    Args:
        body: Reads the items.
        grant: Tells the other end how many items it may send in all.
        what: Whose items they are, for messages to a person.
        patience: How long it waits for the next item.
        hold: Counts the bytes of an item in, or, below 0, out; says whether there is room for them.
    """

    def __init__(
        self,
        body: Body,
        grant: Callable[[int], object],
        what: str,
        patience: Patience = _PATIENT,
        hold: Callable[[int], bool] = no_account,
    ) -> None:
        self._body = body
        self._grant = grant
        self._what = what
        self._patience = patience
        self._hold = hold
        self._largest = 0
        self._granted_at = 0.0
        self._items: deque[Raw] = deque()
        self._arrived = 0
        self._taken = 0
        self._granted = FIRST_ITEMS
        self._end: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes in."""
        return self._end is not None

    def item(self, number: int, raw: Raw) -> None:
        """Take an item in; one that came before is passed over, and a gap ends the flow."""
        if self.is_over or number < self._arrived:
            return
        if number > self._arrived:
            self.fail(PeerLost(f"Items of {self._what} were lost on their way."))
            return
        if number >= self._granted:
            self.fail(PeerLost(f"{self._what} sends more items than it may."))
            return
        if not self._hold(len(raw)):
            self.fail(PeerLost(f"{self._what} has more bytes of items waiting than it may."))
            return
        self._arrived += 1
        self._items.append(raw)
        self._largest = max(self._largest, len(raw))
        self._grant_more()
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
                if not await self._patience.wait(self._waiting):
                    self.fail(Expired(f"No item of {self._what} came, and others waited."))
            finally:
                self._waiting = None
        raw = self._items.popleft()
        self._hold(-len(raw))
        value = self._body.read(raw, f"An item of {self._what}")
        self._taken += 1
        self._grant_more()
        return value

    def discard(self) -> None:
        """Forget what nobody will take out."""
        self.fail(PeerLost(f"{self._what} is over."))
        while self._items:
            self._hold(-len(self._items.popleft()))

    def _grant_more(self) -> None:
        """Let more items be sent: fewer of large ones, and some from time to time to the patient as well."""
        if self.is_over:
            return
        ahead = max(1, min(ITEMS_AHEAD, _BYTES_AHEAD // max(1, self._largest)))
        more, now = self._taken + ahead - self._granted, asyncio.get_running_loop().time()
        if more >= max(1, ahead // 2) or (more > 0 and now - self._granted_at > _GRANT_AFTER):
            self._granted += more
            self._granted_at = now
            self._grant(self._granted)

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
        patience: How long it waits for the next grant.
    """

    def __init__(
        self, send: Callable[[int, Any], None], granted: int = 0, patience: Patience = _PATIENT
    ) -> None:
        self._send = send
        self._patience = patience
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
            Expired: The other end has made no room for a long time, and others waited.
            TooLarge: It has more bytes than one message may have.
            MalformedMessage: It holds something that has no form on the wire.
        """
        while self.count >= self._granted:
            self._waiting = asyncio.get_running_loop().create_future()
            try:
                if not await self._patience.wait(self._waiting):
                    raise Expired("Nobody took the items of this stream, and others waited.")
            finally:
                self._waiting = None
        self._send(self.count, value)
        self.count += 1
        if self.count % _YIELD_AFTER == 0:
            # A producer that never waits must not keep the items from going out.
            await asyncio.sleep(0)
