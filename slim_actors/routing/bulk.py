"""Many tells at once: in frames of many, with one future for all of them.

A task, a future and a frame for each of a thousand messages cost more than all the rest of them. So what can
be sent at once goes together. What does not simply end as accepted goes on as any other tell, so nothing that
is promised of one is different here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from msgspec import Raw

from slim_actors import wire
from slim_actors.call import Call
from slim_actors.errors import DeliveryError, Expired, NoRoute, PeerLost
from slim_actors.messages import RAW, body_of
from slim_actors.routes import Route
from slim_actors.routing.breaker import Breaker
from slim_actors.routing.outgoing import Late, Outgoing, Pending, Trials
from slim_actors.routing.peer import Peer
from slim_actors.routing.pin import Pin
from slim_actors.routing.pool import Pool

if TYPE_CHECKING:
    from slim_actors.routing.router import Router

__all__ = ["Bulk"]

_TOGETHER = 256
_BYTES_TOGETHER = 64 * 1024
"""Messages in one frame; a larger one goes by itself."""
_CHUNKS_EACH = 8
"""Frames that may be on their way to a replica, or wait for room there, before more are made."""


class Bulk:
    """Tells on one route that have one deadline.

    Args:
        router: Sends those that go by themselves.
        route: Where they go.
        pool: The replicas, where there is a choice.
        expires: Their deadline.
        context: What travels along with each.
    """

    def __init__(
        self,
        router: Router,
        route: Route | Pin,
        pool: Pool | None,
        expires: float,
        context: dict[str, Any],
    ) -> None:
        self._router = router
        self._route = route
        self._pool = pool
        self.expires = expires
        self._context = context
        self._messages: Sequence[object] = ()
        self._position = 0
        self._next: Outgoing | None = None
        self._chunks: set[_Chunk] = set()
        self._alone: set[asyncio.Future[None]] = set()
        self.accepted = 0
        self._failures: dict[int, BaseException] = {}
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Stands for the outcome of each until that has come."""
        self._changed = asyncio.Event()

    async def send(self, messages: Sequence[object]) -> None:
        """Send messages, in this order; done when all of them have been accepted.

        Raises:
            DeliveryError: The first failure, after all have ended.
            Exception: A message cannot be sent.
        """
        self._messages = messages
        try:
            while (message := self._take()) is not None:
                await self._go(message)
            while self._chunks or self._alone:
                await self._change()
        finally:
            await self._end()
        if self._failures:
            error = self._failures[min(self._failures)]
            error.add_note(f"{self.accepted} of {len(messages)} messages were accepted.")
            raise error

    def failed(self, message: Outgoing, peer: Peer, error: BaseException) -> None:
        """Take note of an outcome that is an error: another replica may still do better."""
        if isinstance(error, DeliveryError) and self._pool is not None:
            trials = Trials(message)
            try:
                trials.failed(peer, error)
            except DeliveryError as last:
                error = last
            else:
                self._send_alone(message, self._router.retry(Call(), self._pool, trials))
                return
        self._failures[message.id] = error
        if isinstance(error, PeerLost) and self._pool is None:
            self._router.forget_if_lost(self._route)
            # Not in silence to another replica.
            self._give_up()
        elif isinstance(error, Expired):
            self._give_up()

    def too_late(self, peer: Peer) -> Expired:
        """Make the error that the deadline has passed."""
        call: Call[None] = Call()
        call.replica = peer
        return self._router.too_late(call)

    def left(self, chunk: _Chunk) -> None:
        """Take note that all messages of a frame have ended."""
        self._chunks.discard(chunk)
        self._changed.set()

    def _take(self) -> Outgoing | None:
        """Give the next message; what cannot be sent has failed."""
        message, self._next = self._next, None
        while message is None and self._position < len(self._messages):
            value = self._messages[self._position]
            self._position += 1
            message_id = self._router.next_id()
            try:
                wire_type, body = body_of(value)
                raw = Raw(wire.encode_body(body))
            except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
                self._failures[message_id] = error
            else:
                message = Outgoing(wire.Tell, message_id, wire_type, raw, self.expires, RAW, self._context)
        return message

    async def _go(self, message: Outgoing) -> None:
        """Send a message, and as many of the next ones as may go with it."""
        breaker = None if self._pool is None else self._pool.breaker(message.type)
        peer = self._router.at_hand(self._route, breaker)
        if peer is None:
            await self._find_somebody(message)
            return
        self._send_many(peer, message, breaker)
        # Others have their turn, and the link sends what it has.
        await asyncio.sleep(0)
        while len(self._chunks) >= _CHUNKS_EACH * self._replicas:
            await self._change()

    async def _find_somebody(self, message: Outgoing) -> None:
        """Send a message by itself, since a replica has to be found; the next ones have it at hand then."""
        try:
            await self._router.deliver(Call(), self._route, message)
        except Exception as error:  # noqa: BLE001 (raised when all have ended)
            self._failures[message.id] = error
            if isinstance(error, NoRoute | Expired) or (isinstance(error, PeerLost) and self._pool is None):
                self._give_up()
            else:
                # They may do better, but not one after the other.
                while (other := self._take()) is not None:
                    self._send_alone(other, self._router.deliver(Call(), self._route, other))
        else:
            self.accepted += 1

    def _give_up(self) -> None:
        """Send no more: there is nobody to send to, or no time left."""
        self._next, self._position = None, len(self._messages)

    @property
    def _replicas(self) -> int:
        return 1 if self._pool is None else max(1, len(self._pool.peers))

    def _send_many(self, peer: Peer, first: Outgoing, breaker: Breaker | None) -> None:
        # Each replica gets its part, and one that is on trial no more than the trial.
        left = len(self._messages) - self._position + 1
        together = min(_TOGETHER, -(-left // self._replicas)) if breaker is None or not breaker.open else 1
        chunk = _Chunk(self, peer, breaker, self._loop.time())
        size = chunk.add(first)
        while len(chunk.tells) < together and (message := self._take()) is not None:
            size += len(message.body)
            follows = message.id == first.id + len(chunk.tells) and message.type == first.type
            if size > _BYTES_TOGETHER or not follows or len(message.body) > peer.max_payload:
                self._next = message
                break
            chunk.add(message)
        peer.uses += len(chunk.tells) - 1
        self._chunks.add(chunk)
        peer.tell(chunk.tells)

    def _send_alone(self, message: Outgoing, outcome: Awaitable[None]) -> None:
        task = asyncio.ensure_future(outcome)
        self._alone.add(task)
        task.add_done_callback(partial(self._alone_done, message))

    def _alone_done(self, message: Outgoing, task: asyncio.Future[None]) -> None:
        self._alone.discard(task)
        self._changed.set()
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._failures[message.id] = error
        elif not task.cancelled():
            self.accepted += 1

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    async def _end(self) -> None:
        """End what has not ended: nobody waits for it any more."""
        self._give_up()
        for chunk in list(self._chunks):
            chunk.cancel()
        tasks = list(self._alone)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        self.ended.cancel()


class _Chunk:
    """Tells that go in one frame: of one type, with ids that follow each other."""

    def __init__(self, bulk: Bulk, peer: Peer, breaker: Breaker | None, began: float) -> None:
        self._bulk = bulk
        self._peer = peer
        self._breaker = breaker
        self._began = began
        self._left = 0
        self.tells: list[_Tell] = []

    def add(self, message: Outgoing) -> int:
        """Add a message; give its size."""
        size = len(message.body)
        self.tells.append(_Tell(message, self._bulk.ended, size=size, chunk=self))
        self._left += 1
        return size

    def ended(self, tell: _Tell, error: Exception | None) -> None:
        """Take note of the outcome of one."""
        if tell.is_over:
            return
        tell.is_over = True
        self._peer.told(tell)
        if isinstance(error, Late):
            error = self._bulk.too_late(self._peer)
        if self._breaker is not None:
            self._breaker.record(self._peer, self._began, self._bulk.expires, error)
        if error is None:
            self._bulk.accepted += 1
        else:
            self._bulk.failed(tell.message, self._peer, error)
        self._left -= 1
        if not self._left:
            self.tells = []
            self._bulk.left(self)

    def cancel(self) -> None:
        """Cancel those that have no outcome."""
        for tell in self.tells:
            if not tell.is_over:
                tell.is_over = tell.is_late = True
                self._peer.told(tell)
        self.tells = []


class _Tell(Pending, kw_only=True, gc=False):
    """One message among others: its future is that of all of them, and its end is counted there.

    The garbage collector looks at none of them, so a chunk lets go of its own when all have ended.
    """

    chunk: _Chunk
    is_over: bool = False

    def end(self, result: Any = None, error: Exception | None = None) -> None:
        """See `Pending.end`."""
        self.chunk.ended(self, error)
