"""Many tells at once: in frames of many, with one future for all of them.

A task, a future and a frame for each of a thousand messages cost more than all the rest of them. So what can
be sent at once goes together. What does not simply end as accepted goes on as any other tell, so nothing that
is promised of one is different here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from copy import copy
from functools import partial
from itertools import islice
from math import inf
from typing import TYPE_CHECKING, Any

from slim_actors import wire
from slim_actors.call import Call
from slim_actors.errors import DeliveryError, Expired, NodeUnreachable, NoRoute, PeerLost
from slim_actors.messages import RAW, body_of
from slim_actors.routes import Anycast, Route
from slim_actors.routing.breaker import Breaker
from slim_actors.routing.outgoing import Chunk, Late, Outgoing, Trials
from slim_actors.routing.peer import Peer
from slim_actors.routing.pin import Pin
from slim_actors.routing.pool import Pool

if TYPE_CHECKING:
    from slim_actors.routing.router import Router

__all__ = ["Bulk"]

_TOGETHER = 1000
_BYTES_TOGETHER = 128 * 1024
"""Messages in one frame; a larger one goes by itself."""
_CHUNKS_EACH = 4
"""Frames that may be on their way to a replica, or wait for room there, before more are made."""


class Bulk:
    """Tells on one route that have one deadline.

    Args:
        router: Sends those that go by themselves.
        route: Where they go.
        pool: The replicas, where there is a choice.
        messages: What is sent, in this order.
        expires: Their deadline.
        context: What travels along with each.
    """

    def __init__(
        self,
        router: Router,
        route: Route | Pin,
        pool: Pool | None,
        messages: Sequence[object],
        expires: float,
        context: dict[str, Any],
    ) -> None:
        self._router = router
        self._route = route
        self._pool = pool
        self._messages = messages
        self._expires = expires
        self._context = context
        self._position = 0
        self._chunks: set[Chunk] = set()
        self._alone: set[asyncio.Future[None]] = set()
        self._accepted = 0
        self._failures: dict[int, BaseException] = {}
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        """Stands for the outcome of each until that has come."""
        self._changed = asyncio.Event()

    async def send(self) -> None:
        """Send the messages; done when all of them have been accepted.

        Raises:
            DeliveryError: The first failure, after all have ended.
            Exception: A message cannot be sent.
        """
        deadline = self._loop.call_at(self._expires, self._end_late) if self._expires < inf else None
        try:
            while self._position < len(self._messages):
                await self._go()
            while self._chunks or self._alone:
                await self._change()
        finally:
            if deadline is not None:
                deadline.cancel()
            await self._end()
        if self._failures:
            error = self._failures[min(self._failures)]
            error.add_note(f"{self._accepted} of {len(self._messages)} messages were accepted.")
            raise error

    async def _go(self) -> None:
        """Send the next message, and as many of those that follow as may go with it."""
        wire_type = self._next_type()
        if wire_type is None:
            return
        breaker = None if self._pool is None else self._pool.breaker(wire_type)
        peer = self._router.at_hand(self._route, breaker)
        if peer is None:
            one = self._take_one(wire_type)
            if one is not None:
                await self._find_somebody(one)
            return
        # Each replica gets its part, and one that is on trial no more than the trial.
        left = len(self._messages) - self._position
        most = min(_TOGETHER, -(-left // self._replicas)) if breaker is None or not breaker.open else 1
        message = self._take(wire_type, most, min(_BYTES_TOGETHER, peer.max_payload))
        if message is None:
            if breaker is not None:
                # It may have been the probe, which is to be made again.
                breaker.record(peer, self._loop.time(), self._expires, asyncio.CancelledError())
            return
        now = self._loop.time()
        told = partial(self._told, peer, breaker, now)
        chunk = Chunk(message, self._ended, size=sum(map(len, message.body)), told=told, others=self._chunks)
        self._chunks.add(chunk)
        if self._pool is not None:
            self._pool.give_more(peer, chunk.count - 1)
        peer.tell(chunk)
        if now >= self._expires:
            self._end_late()
        # Others have their turn, and the link sends what it has.
        await asyncio.sleep(0)
        while len(self._chunks) >= _CHUNKS_EACH * self._replicas:
            await self._change()

    def _next_type(self) -> str | None:
        """Give the type of the next message; None if its class cannot be a message, and it failed."""
        try:
            return body_of(self._messages[self._position])[0]
        except Exception as error:  # noqa: BLE001 (raised when all have ended)
            self._skip(error)
            return None

    def _take_one(self, wire_type: str) -> Outgoing | None:
        """Give the next message as one by itself; None if it cannot be sent, and failed."""
        message = self._take(wire_type, 1)
        return None if message is None else message.one(message.id)

    def _take(self, wire_type: str, most: int, most_bytes: int = 0) -> Outgoing | None:
        """Give the next messages that may go together; None if the next one cannot be sent, and failed."""
        bodies: list[bytes] = []
        size, kind = 0, type(self._messages[self._position])
        try:
            for message in islice(self._messages, self._position, self._position + most):
                if type(message) is not kind:
                    break
                body = wire.encode_body(message)
                size += len(body)
                if size > most_bytes and bodies:
                    break
                bodies.append(body)
        except Exception as error:  # noqa: BLE001 (encoding runs code of the user's classes)
            if not bodies:
                self._skip(error)
                return None
        self._position += len(bodies)
        first = self._router.take_ids(len(bodies))
        return Outgoing(wire.Tells, first, wire_type, bodies, self._expires, RAW, self._context)

    def _skip(self, error: Exception) -> None:
        self._failures[self._router.take_ids(1)] = error
        self._position += 1

    async def _find_somebody(self, message: Outgoing) -> None:
        """Send a message by itself, since a replica has to be found; the next ones have it at hand then."""
        try:
            await self._router.deliver(Call(), self._route, message)
        except Exception as error:  # noqa: BLE001 (raised when all have ended)
            self._failures[message.id] = error
            is_vain = isinstance(error, NoRoute | NodeUnreachable | Expired)
            if is_vain or (isinstance(error, PeerLost) and self._pool is None):
                self._give_up()
            else:
                self._send_the_rest_alone()
        else:
            self._accepted += 1

    def _send_the_rest_alone(self) -> None:
        # They may do better, but not one after the other.
        while self._position < len(self._messages):
            wire_type = self._next_type()
            one = None if wire_type is None else self._take_one(wire_type)
            if one is not None:
                self._send_alone(one, self._router.deliver(Call(), self._route, one))

    def _give_up(self) -> None:
        """Send no more: there is nobody to send to, or no time left."""
        self._position = len(self._messages)

    @property
    def _replicas(self) -> int:
        return 1 if self._pool is None else max(1, len(self._pool.discovery.live))

    def _told(
        self,
        peer: Peer,
        breaker: Breaker | None,
        began: float,
        chunk: Chunk,
        ids: Sequence[int],
        error: Exception | None,
    ) -> None:
        """Take note of how some of a chunk have ended."""
        peer.told(chunk, ids)
        if not chunk.count:
            self._chunks.discard(chunk)
            self._changed.set()
        if isinstance(error, Late):
            error = self._too_late(peer)
        is_over = self._ended.cancelled()
        if breaker is not None:
            # One that was cancelled is told of too: it may have been the probe.
            outcome = asyncio.CancelledError() if is_over else error
            breaker.record(peer, began, self._expires, outcome, len(ids))
        if is_over:
            return
        if error is None:
            self._accepted += len(ids)
            return
        for message_id in ids:
            self._failed(chunk.message.one(message_id), peer, copy(error) if len(ids) > 1 else error)

    def _failed(self, message: Outgoing, peer: Peer, error: Exception) -> None:
        """Take note of an outcome that is an error: another replica may still do better."""
        if isinstance(error, DeliveryError) and isinstance(self._route, Anycast):
            trials = Trials(message)
            try:
                trials.failed(peer, error)
            except DeliveryError as last:
                error = last
            else:
                self._send_alone(message, self._router.retry(Call(), self._route, trials))
                return
        self._failures[message.id] = error
        if isinstance(error, PeerLost) and self._pool is None:
            self._router.forget_if_lost(self._route)
            # Not in silence to another replica.
            self._give_up()
        elif isinstance(error, Expired):
            self._give_up()

    def _too_late(self, peer: Peer) -> DeliveryError:
        call: Call[None] = Call()
        call.replica = peer
        return self._router.too_late(call)

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
            self._accepted += 1

    async def _change(self) -> None:
        self._changed.clear()
        await self._changed.wait()

    def _end_late(self) -> None:
        """End all that are under way: their one deadline has passed, or nobody waits for them any more."""
        # Those that were not sent first, lest the end of one makes room for the next.
        for chunk in sorted(self._chunks, key=lambda chunk: chunk.message.id, reverse=True):
            chunk.is_late = True
            chunk.end(error=Late())

    async def _end(self) -> None:
        """End what has not ended: nobody waits for it any more."""
        self._give_up()
        self._ended.cancel()
        self._end_late()
        tasks = list(self._alone)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
