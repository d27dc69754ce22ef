"""What is under way to one replica, and who waits for a place among it."""

from __future__ import annotations

import asyncio
from collections import deque
from math import inf

from msgspec import Struct

from slim_actors.routing.outgoing import Late, Pending

__all__ = ["Window"]

_FIRST_BYTES = 16 * 1024 * 1024
"""What may be under way before the agent's hello has said how many bytes."""


class Window:
    """The messages under way to one replica: no more of them, and no more bytes, than it has room for.

    Places are handed out in the order of asking: who comes while others wait, or are just being woken, waits
    behind them.

    Args:
        size: How many messages the replica's mailbox may not have accepted yet.
    """

    def __init__(self, size: int) -> None:
        self.pending: dict[int, Pending] = {}
        """What has no outcome yet, by its id."""
        self.sent = 0
        """How many messages were sent in all."""
        self._size = size
        self._most_bytes = _FIRST_BYTES
        self._bytes = 0
        self._largest = 0
        self._credited = 0
        self._reserved = 0
        self._waiting: deque[_Turn] = deque()
        self._is_over = False

    @property
    def outstanding(self) -> int:
        """How many messages have no outcome yet, those included that wait for a place."""
        return len(self.pending) + len(self._waiting)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is under way, waits, or is about to be sent."""
        return not (self.pending or self._reserved or self._waiting)

    @property
    def is_open(self) -> bool:
        """Whether a message may be sent at once."""
        return not (self._waiting or self._reserved or self._is_over) and self._has_room

    def add(self, pending: Pending) -> None:
        """Count a message that was sent."""
        self.pending[pending.message.id] = pending
        self.sent += 1
        self._bytes += pending.size
        self._largest = max(self._largest, pending.size)

    def remove(self, pending: Pending) -> None:
        """Give back the place of a message that has ended. Does nothing the second time."""
        if self.pending.pop(pending.message.id, None) is not None:
            self._bytes -= pending.size
        if self._waiting:
            self._admit()

    async def reserve(self, expires: float) -> None:
        """Wait for a place. It is kept until `release`; one that is over has places for all.

        Raises:
            Late: There was none until the deadline.
        """
        if self._is_over or self.is_open:
            self._reserved += 1
            return
        turn = _Turn(asyncio.get_running_loop().create_future(), expires)
        self._waiting.append(turn)
        try:
            await turn.has_come
        except asyncio.CancelledError:
            if turn.has_come.done() and not turn.has_come.cancelled() and not turn.has_come.exception():
                self.release()
            raise

    def release(self) -> None:
        """Give back a place that was reserved: its message is under way now, or will not be sent."""
        self._reserved -= 1
        self._admit()

    def expire(self, now: float) -> float:
        """Fail who waits for a place at the deadline; give the next deadline, infinite if there is none."""
        for turn in self._waiting:
            if turn.expires <= now and not turn.has_come.done():
                turn.has_come.set_exception(Late())
        self._waiting = deque(turn for turn in self._waiting if not turn.has_come.done())
        return min((turn.expires for turn in self._waiting), default=inf)

    def credit(self, total: int) -> None:
        """Take note of how many messages the replica's mailbox has accepted in all."""
        self._credited = max(self._credited, min(total, self.sent))
        self._admit()

    def resize(self, size: int, most_bytes: int) -> None:
        """Take note of how many messages, and how many bytes, the replica has room for."""
        self._size, self._most_bytes = max(1, size), max(1, most_bytes)
        self._admit()

    def close(self) -> None:
        """Let nobody wait any more."""
        self._is_over = True
        self._admit()

    @property
    def _has_room(self) -> bool:
        # Those that have a place and are not sent yet count as much as the largest so far.
        if self._bytes + self._reserved * self._largest >= self._most_bytes:
            return False
        # What has its outcome is no longer waiting at the door, whatever the last credit said.
        room = self._size - self._reserved
        return len(self.pending) < room or self.sent - self._credited < room

    def _admit(self) -> None:
        while self._waiting and (self._is_over or self._has_room):
            turn = self._waiting.popleft()
            if not turn.has_come.done():
                self._reserved += 1
                turn.has_come.set_result(None)


class _Turn(Struct, eq=False):
    """Somebody who waits for a place."""

    has_come: asyncio.Future[None]
    expires: float
