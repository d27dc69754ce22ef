"""What is under way to one replica, and what waits until there is room for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import accumulate, chain

from slim_actors import wire
from slim_actors.errors import DeliveryError, MalformedMessage
from slim_actors.limits import BATCH_FRAMES
from slim_actors.routing.outgoing import Chunk, Outgoing, Pending

__all__ = ["Window"]

_FIRST_BYTES = 16 * 1024 * 1024
"""What may be under way before the agent's hello has said how many bytes."""
_MOST_CLAIMED = 100_000
"""Messages of which a peer may say that they were accepted although none was sent, or with others; with four
times those that were sent: what comes again after an outage is accepted again."""


class Window:
    """The messages to one replica: no more of them, and no more bytes, are under way than it has room for.

    The others wait, and are sent in the order in which they came as others end. Who waits for the outcome of
    one does not notice: he is not woken only to send it.

    Args:
        size: How many messages may be under way that the replica's mailbox has not accepted.
        send: Sends a message or a chunk, and gives how many bytes it has.
    """

    def __init__(self, size: int, send: Callable[[Pending], int]) -> None:
        self.pending: dict[int, Pending] = {}
        """What is under way and has no outcome yet, by its id; a chunk by its first one."""
        self.sent = 0
        """How many messages were sent in all."""
        self._send = send
        self._size = size
        self._most_bytes = _FIRST_BYTES
        self._bytes = 0
        self._credited = self._claimed = 0
        self._waiting: OrderedDict[int, Pending] = OrderedDict()
        self._chunks: set[Chunk] = set()
        """Those that are under way."""
        self._more = self._more_waiting = 0
        """How many messages chunks have, under way and waiting, beyond one each."""

    def __len__(self) -> int:
        """How many messages have no outcome yet, those included that wait."""
        return len(self.pending) + len(self._waiting) + self._more + self._more_waiting

    def __iter__(self) -> Iterator[Pending]:
        return chain(self.pending.values(), self._waiting.values())

    def get(self, message_id: int) -> Pending | None:
        """Give what has no outcome yet, under way or waiting, by its id; a chunk by its first one."""
        return self.pending.get(message_id) or self._waiting.get(message_id)

    def put(self, pending: Pending) -> None:
        """Send a message, at once if there is room.

        Raises:
            DeliveryError: There was, and it cannot be sent. Later this is its outcome.
        """
        # Whether there is room is asked here once more than below: this is done for each message.
        if (
            self._waiting
            or self._bytes >= self._most_bytes
            or (len(self.pending) + self._more >= self._size and self.sent - self._credited >= self._size)
        ):
            self._waiting[pending.message.id] = pending
        else:
            self._put(pending)

    def put_chunk(self, chunk: Chunk) -> None:
        """Send tells together, as many of them at once as there is room for."""
        self._waiting[chunk.message.id] = chunk
        self._more_waiting += chunk.count - 1
        self._admit()

    def replied(self, message_id: int) -> Pending | None:
        """Give the ask whose reply has come, and its place back; None if no ask is under way with this id."""
        pending = self.pending.get(message_id)
        if pending is None or pending.message.kind is not wire.Ask:
            return None
        del self.pending[message_id]
        pending.has_reply = True
        self._bytes -= pending.size
        if self._waiting:
            self._admit()
        return pending

    def remove(self, pending: Pending) -> bool:
        """Give back the place of a message that has ended; tell whether it had been sent."""
        message_id = pending.message.id
        if self.pending.pop(message_id, None) is None:
            self._waiting.pop(message_id, None)
            return False
        self._bytes -= pending.size
        if self._waiting:
            self._admit()
        return True

    def remove_some(self, chunk: Chunk, count: int) -> bool:
        """Give back the places of some of a chunk that have ended; tell whether it had been sent."""
        was_sent = chunk.message.id in self.pending
        more = count if chunk.count else count - 1
        if was_sent:
            self._more -= more
        elif chunk.message.id in self._waiting:
            self._more_waiting -= more
        if not chunk.count:
            self._chunks.discard(chunk)
            self.remove(chunk)
        elif self._waiting:
            self._admit()
        return was_sent

    def _find(self, message_id: int) -> Pending | None:
        """Give what is under way with this id, which may be any of a chunk."""
        found = self.pending.get(message_id)
        if found is None and self._chunks:
            return next((chunk for chunk in self._chunks if message_id in chunk.ids), None)
        return found

    def accepted(self, first: int, count: int) -> bool:
        """End tells with ids that follow each other; False if the replica claims too much of the kind."""
        pending = self.pending.get(first)
        if pending is not None and pending.span == count:
            # Either one, or a whole chunk, as nearly always.
            pending.end(error=_no_reply(pending.message))
            return True
        self._claimed += count
        if self._claimed > _MOST_CLAIMED + 4 * self.sent:
            # Each is looked for: a few bytes would make a lot of work.
            return False
        if count <= len(self.pending):
            for message_id in range(first, first + count):
                self.end(message_id)
            return True
        # Some of a chunk, or what a peer makes up: so what there is decides how long this takes.
        ids = range(first, first + count)
        for pending in list(self.pending.values()):
            if isinstance(pending, Chunk):
                pending.end_some(ids)
            elif pending.message.id in ids:
                self.end(pending.message.id)
        return True

    def end(self, message_id: int, error: DeliveryError | None = None) -> None:
        """End what is under way with this id, which may be one of a chunk: with an error, or well."""
        pending = self._find(message_id)
        if isinstance(pending, Chunk):
            pending.end_some(range(message_id, message_id + 1), error)
        elif pending is not None:
            pending.end(error=error or _no_reply(pending.message))

    def credit(self, total: int) -> None:
        """Take note of how many messages the replica's mailbox has accepted in all."""
        self._credited = max(self._credited, min(total, self.sent))
        self._admit()

    def resize(self, size: int, most_bytes: int) -> None:
        """Take note of how many messages, and how many bytes, the replica has room for."""
        # No more than may come in one payload, where each tell of a frame counts as a frame.
        self._size, self._most_bytes = min(max(1, size), BATCH_FRAMES), max(1, most_bytes)
        self._admit()

    def close(self) -> None:
        """Send no more."""
        self._size = 0

    def is_sent(self, pending: Pending) -> bool:
        """Tell whether a message is under way, rather than waiting."""
        return pending.message.id in self.pending

    @property
    def _has_room(self) -> bool:
        # What has its outcome is no longer waiting at the door, whatever the last credit said.
        return self._bytes < self._most_bytes and (
            len(self.pending) + self._more < self._size or self.sent - self._credited < self._size
        )

    def _put(self, pending: Pending) -> None:
        pending.size = self._send(pending)
        self.pending[pending.message.id] = pending
        self.sent += 1
        self._bytes += pending.size

    def _admit(self) -> None:
        while self._waiting and self._has_room:
            _, pending = self._waiting.popitem(last=False)
            if isinstance(pending, Chunk):
                pending = self._as_much_as_fits(pending)
            elif pending.outcome.done():
                continue
            try:
                self._put(pending)
            except Exception as error:  # noqa: BLE001 (also what a user's own class raises: its sender's)
                pending.end(error=error)
            else:
                if isinstance(pending, Chunk):
                    self._chunks.add(pending)
                    self.sent += pending.count - 1
                    self._more += pending.count - 1

    def _as_much_as_fits(self, chunk: Chunk) -> Chunk:
        """Give what there is room for of a chunk that was first in the row; the rest of it is so again."""
        bodies = chunk.message.body
        self._more_waiting -= len(bodies) - 1
        fits = self._size - min(len(self.pending) + self._more, self.sent - self._credited)
        if self._bytes + chunk.size > self._most_bytes:
            room = self._most_bytes - self._bytes
            fits = min(fits, sum(total <= room for total in accumulate(map(len, bodies))) or 1)
        if fits >= len(bodies):
            return chunk
        part = chunk.split(fits)
        self._waiting[chunk.message.id] = chunk
        self._waiting.move_to_end(chunk.message.id, last=False)
        self._more_waiting += chunk.count - 1
        return part


def _no_reply(message: Outgoing) -> DeliveryError | None:
    """Make the error of an ask that ends as a tell does: nobody may take that for a reply of None."""
    if message.kind is not wire.Ask:
        return None
    error = MalformedMessage(f"The answer to {message.type} says that it was accepted, and is no reply.")
    error.may_have_run = True
    return error
