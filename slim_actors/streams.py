"""Flows of items, in either direction: numbered, bounded by grants, with an end or an error.

The receiving end (`Inlet`) says how many items the sending end (`Outlet`) may have sent in all: as many more
than were taken out, always. It says so anew as items are taken out, so a slow reader holds the producer back.
How large they are only the sending end knows in time: from each grant it knows what was taken out, and it
stops while too many bytes were not. So neither end's memory grows.

The fast path: items that are made in one turn of the event loop go in one frame, and whoever takes the first
of them reads them all in one go.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from math import inf
from typing import Any, Protocol

from msgspec import Raw

from slim_actors import wire
from slim_actors.errors import Expired, MalformedMessage, PeerLost
from slim_actors.limits import no_account
from slim_actors.messages import Body
from slim_actors.patience import Patience

__all__ = ["ITEMS_AHEAD", "Inlet", "Outlet"]

ITEMS_AHEAD = 1024
"""Items that may be on their way, or wait to be taken out."""
FIRST_ITEMS = 8
"""Items that may be sent before the first has come: for who wants no more, few are made in vain."""

_BYTES_AHEAD = 8 * 1024 * 1024
"""While items of so many bytes were not taken out yet, no further one is sent."""
_MOST_BYTES = 2 * _BYTES_AHEAD
"""While so many wait, no further one comes from a peer that counts as `Outlet` does."""
_GRANT_AFTER = 1.0
_TOGETHER = 256
_BYTES_TOGETHER = 64 * 1024
"""Items in one frame, which are made in a row; a larger one goes by itself."""
_AT_A_STRETCH = 0.001
"""Seconds after which items go out, however few, and other tasks have their turn."""
_LOOK_EVERY = 16
"""Items; the clock costs too much for each of them."""


_PATIENT = Patience()


class Inlet(AsyncIterator[Any]):
    """The receiving end.

    Args:
        body: Reads the items.
        grant: Tells the other end how many items it may send in all.
        what: Whose items they are, for messages to a person.
        patience: How long it waits for the next item.
        hold: Counts the bytes of items in, or, below 0, out; says whether there is room for them.
    """

    def __init__(
        self,
        body: Body,
        grant: Callable[[int], object],
        what: str,
        patience: Patience = _PATIENT,
        hold: Callable[[int], bool] = no_account,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._body = body
        self._grant = grant
        self._what = what
        self._patience = patience
        self._hold = hold
        self._granted_at = self._loop.time()
        self._unread: deque[tuple[Raw, int]] = deque()
        """Items as they came, each with 0, and lists of them, each with how many it has."""
        self._bytes = 0
        """How many they have."""
        self._read_bytes = 0
        """How many had those that were read since the last grant."""
        self._values: deque[Any] = deque()
        self._arrived = 0
        self._taken = 0
        self._granted = FIRST_ITEMS
        self._grant_at = 0
        """How many items are taken when the next grant is due, if it is not earlier."""
        self._end: Exception | None = None
        self._waiting: asyncio.Future[None] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more comes in."""
        return self._end is not None

    def take_in(self, frame: wire.Item | wire.Items | wire.End) -> None:
        """Take in what comes; items that came before are passed over, and a gap ends the flow."""
        if type(frame) is wire.Items:
            self._items(frame.number, frame.bodies)
        elif type(frame) is wire.Item:
            self._item(frame.number, frame.body)
        elif type(frame) is wire.End:
            self.end(frame.count)

    def _item(self, number: int, raw: Raw) -> None:
        if number >= self._arrived:
            self._add(number, raw, 0)

    def _items(self, number: int, bodies: Raw) -> None:
        count = wire.count_of(bodies)
        if not 0 < count <= ITEMS_AHEAD:
            # Before anything is made of them.
            self.fail(PeerLost(f"{self._what} sends {count} items in one frame."))
        elif number >= self._arrived:
            self._add(number, bodies, count)
        elif number + count > self._arrived:
            for one, raw in enumerate(wire.split(bodies), number):
                self._item(one, raw)

    def _add(self, number: int, raw: Raw, count: int) -> None:
        if self.is_over:
            return
        size, more = len(raw), count or 1
        if number > self._arrived:
            self.fail(PeerLost(f"Items of {self._what} were lost on their way."))
            return
        if number + more > self._granted:
            self.fail(PeerLost(f"{self._what} sends more items than it may."))
            return
        if self._bytes >= _MOST_BYTES or not self._hold(size):
            self.fail(PeerLost(f"{self._what} has more bytes of items waiting than it may."))
            return
        self._unread.append((raw, count))
        self._bytes += size
        self._arrived += more
        if not self._grant_at:
            # The first of all.
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
        if not (self._values or self._unread or await self.more()):
            raise StopAsyncIteration
        return self._take()

    async def more(self, seconds: float = inf) -> bool:
        """Wait until there is an item to be taken; False at the end of the flow.

        Raises:
            Expired: None came within so many seconds.
            Exception: The flow ended with it.
        """
        while not (self._values or self._unread):
            if isinstance(self._end, StopAsyncIteration):
                return False
            if self._end is not None:
                raise self._end
            self._waiting = self._loop.create_future()
            try:
                async with asyncio.timeout(seconds if seconds < inf else None):
                    if not await self._patience.wait(self._waiting):
                        self.fail(Expired(f"No item of {self._what} came, and others waited."))
            except TimeoutError:
                raise Expired(f"No item of {self._what} came within {seconds:.3g} s.") from None
            finally:
                self._waiting = None
        return True

    def ready(self) -> Iterator[Any]:
        """Give the items that are there, without a coroutine for each.

        Raises:
            MalformedMessage: One is not of the declared type.
        """
        while self._values or self._unread:
            yield self._take()

    def _take(self) -> Any:
        # Also one that cannot be read.
        self._taken += 1
        if not self._values:
            self._read()
        # Only who was sent all that it may send is kept waiting by what is not granted yet.
        if self._taken >= self._grant_at or self._arrived == self._granted:
            self._grant_more()
        return self._values.popleft()

    def _read(self) -> None:
        """Read what came next: one item, or a list of them in one go."""
        raw, count = self._unread.popleft()
        if count:
            try:
                self._values.extend(self._body.read_all(raw))
            except MalformedMessage:
                # One by one, so that those before the wrong one are given.
                one_by_one = wire.split(raw)
                self._took(len(raw) - sum(map(len, one_by_one)), 1)
                self._unread.extendleft((one, 0) for one in reversed(one_by_one))
                raw, _ = self._unread.popleft()
            else:
                self._took(len(raw), count)
                return
        self._took(len(raw), 1)
        self._values.append(self._body.read(raw, f"An item of {self._what}"))

    def _took(self, size: int, count: int) -> None:
        """Take note that so many items, of so many bytes, wait no more to be read."""
        self._bytes -= size
        self._read_bytes += size
        self._hold(-size)
        if self._read_bytes >= _BYTES_AHEAD // 2 or (
            # The other end has stopped for its bytes; it must see now and then that some were taken.
            self._read_bytes + self._bytes >= _BYTES_AHEAD
            and self._loop.time() - self._granted_at > _GRANT_AFTER
        ):
            self._grant_at = min(self._grant_at, self._taken + count - 1)
        if self._taken >= self._grant_at:
            # Now: the item may be one that cannot be read.
            self._grant_more()

    def discard(self) -> None:
        """Forget what nobody will take out."""
        self.fail(PeerLost(f"{self._what} is over."))
        self._values.clear()
        self._unread.clear()
        self._hold(-self._bytes)
        self._bytes = 0

    def _grant_more(self) -> None:
        """Let more items be sent, some from time to time to the patient as well."""
        now = self._loop.time()
        if self.is_over or (self._taken < self._grant_at and now - self._granted_at <= _GRANT_AFTER):
            return
        self._granted, self._granted_at = self._taken + ITEMS_AHEAD, now
        self._grant_at, self._read_bytes = self._taken + ITEMS_AHEAD // 2, 0
        self._grant(self._granted)

    def _wake(self) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)


class Way(Protocol):
    """Where a flow goes; see `Link`."""

    max_payload: int

    def send(self, frame: wire.Frame) -> bytes:
        """Send a frame."""

    def room(self) -> Awaitable[None] | None:
        """Give what to wait for until not too much is waiting to be sent; None if there is room."""


class Outlet:
    """The sending end.

    Args:
        way: Where the items go.
        message_id: Whose items they are.
        granted: How many items may be sent before the first grant.
        patience: How long it waits for the next grant.
    """

    def __init__(self, way: Way, message_id: int, granted: int = 0, patience: Patience = _PATIENT) -> None:
        self._loop = asyncio.get_running_loop()
        self._way = way
        self._id = message_id
        self._patience = patience
        self._granted = self._until = min(granted, ITEMS_AHEAD)
        """How many items may be sent in all, and how many that are with a look at their bytes."""
        self._sent: deque[tuple[int, int]] = deque()
        """Of each frame that may not be taken out yet the number after its last item, and its bytes."""
        self._sent_bytes = 0
        self._waiting: asyncio.Future[None] | None = None
        self._bodies: list[bytes] = []
        """The last items, which go out together: in the next turn of the event loop at the latest."""
        self._size = 0
        self._since = 0.0
        """When the first of them was made."""
        self.count = 0
        """How many items have been sent."""

    def grant(self, total: int) -> None:
        """Let so many items in all be sent."""
        # Whatever the other end says, it has not taken out what was not sent.
        total = min(total, self.count + ITEMS_AHEAD)
        if total <= self._granted:
            return
        self._granted = total
        taken = total - ITEMS_AHEAD
        while self._sent and self._sent[0][0] <= taken:
            self._sent_bytes -= self._sent.popleft()[1]
        self._until = total if self._sent_bytes < _BYTES_AHEAD else 0
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(None)

    def put(self, value: Any) -> Awaitable[None] | None:
        """Send an item, at once if the other end has room for it; give what is to be waited for, if anything.

        A coroutine for each item would cost more than the item.

        Raises:
            Expired: On waiting: the other end has made no room for a long time, and others waited.
            TooLarge: It has more bytes than one message may have.
            MalformedMessage: It holds something that has no form on the wire.
        """
        # Where some wait to go out together, there was room for the first of them.
        room = None if self._bodies else self._way.room()
        if room is not None or self.count >= self._until:
            return self._put_later(value, room)
        # A producer that never waits must not keep the items from going out, nor others from their turn.
        return asyncio.sleep(0) if self.send(value) else None

    async def _put_later(self, value: Any, room: Awaitable[None] | None) -> None:
        while room is not None or self.count >= self._until:
            if room is None:
                change = self._waiting = self._loop.create_future()
            else:
                change = asyncio.ensure_future(room)
            try:
                if not await self._patience.wait(change):
                    raise Expired("Nobody took the items of this stream, and others waited.")
            finally:
                self._waiting = None
                change.cancel()
            room = self._way.room()
        self.send(value)

    def send(self, value: Any) -> bool:
        """Send an item, whether there is room for it or not; tell whether it was the last of many."""
        # Now, and not when they go out: the producer may go on to change it.
        body = wire.encode_body(value)
        size = len(body)
        if size > _BYTES_TOGETHER or size > self._way.max_payload:
            self.flush()
            self._way.send(wire.Item(self._id, self.count, Raw(body)))
            self.count += 1
            self._went(size)
            return True
        bodies = self._bodies
        bodies.append(body)
        self._size += size
        self.count += 1
        together = len(bodies)
        if together == 1:
            self._loop.call_soon(self.flush)
            self._since = self._loop.time()
        elif (
            together == _TOGETHER
            or self._size >= _BYTES_TOGETHER
            or (together % _LOOK_EVERY == 0 and self._loop.time() - self._since > _AT_A_STRETCH)
        ):
            self.flush()
            return True
        return False

    def flush(self) -> None:
        """Send what waits to be sent."""
        bodies = self._bodies
        if not bodies:
            return
        first = self.count - len(bodies)
        if len(bodies) == 1:
            frame: wire.Frame = wire.Item(self._id, first, Raw(bodies[0]))
        else:
            frame = wire.Items(self._id, first, Raw(wire.join(bodies)))
        size = self._size
        self._bodies, self._size = [], 0
        self._way.send(frame)
        self._went(size)

    def _went(self, size: int) -> None:
        self._sent.append((self.count, size))
        self._sent_bytes += size
        if self._sent_bytes >= _BYTES_AHEAD:
            self._until = 0

    def end(self) -> bytes:
        """Send that there are no more, after all that waits; give that frame."""
        self.flush()
        return self._way.send(wire.End(self._id, self.count))
