"""What is under way to one replica, and what waits until there is room for it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from itertools import chain

from slim_actors.routing.outgoing import Pending

__all__ = ["Window"]

_FIRST_BYTES = 16 * 1024 * 1024
"""What may be under way before the agent's hello has said how many bytes."""


class Window:
    """The messages to one replica: no more of them, and no more bytes, are under way than it has room for.

    The others wait, and are sent in the order in which they came as others end. Who waits for the outcome of
    one does not notice: he is not woken only to send it.

    Args:
        size: How many messages may be under way that the replica's mailbox has not accepted.
        send: Sends a message, and gives how many bytes it has.
        send_together: Sends some of a chunk, that follow each other.
    """

    def __init__(
        self,
        size: int,
        send: Callable[[Pending], int],
        send_together: Callable[[Sequence[Pending]], None],
    ) -> None:
        self.pending: dict[int, Pending] = {}
        """What is under way and has no outcome yet, by its id."""
        self.sent = 0
        """How many messages were sent in all."""
        self._send = send
        self._send_together = send_together
        self._size = size
        self._most_bytes = _FIRST_BYTES
        self._bytes = 0
        self._credited = 0
        self._waiting: OrderedDict[int, Pending] = OrderedDict()

    def __len__(self) -> int:
        """How many messages have no outcome yet, those included that wait."""
        return len(self.pending) + len(self._waiting)

    def __iter__(self) -> Iterator[Pending]:
        return chain(self.pending.values(), self._waiting.values())

    def put(self, pending: Pending) -> None:
        """Send a message, at once if there is room.

        Raises:
            DeliveryError: There was, and it cannot be sent. Later this is its outcome.
        """
        # Whether there is room is asked here once more than below: this is done for each message.
        if (
            self._waiting
            or self._bytes >= self._most_bytes
            or (len(self.pending) >= self._size and self.sent - self._credited >= self._size)
        ):
            self._waiting[pending.message.id] = pending
        else:
            self._put(pending)

    def put_all(self, chunk: Sequence[Pending]) -> None:
        """Send messages that may go together, as many of them at once as there is room for."""
        self._waiting.update((pending.message.id, pending) for pending in chunk)
        self._admit()

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

    def credit(self, total: int) -> None:
        """Take note of how many messages the replica's mailbox has accepted in all."""
        self._credited = max(self._credited, min(total, self.sent))
        self._admit()

    def resize(self, size: int, most_bytes: int) -> None:
        """Take note of how many messages, and how many bytes, the replica has room for."""
        self._size, self._most_bytes = max(1, size), max(1, most_bytes)
        self._admit()

    def is_sent(self, pending: Pending) -> bool:
        """Tell whether a message is under way, rather than waiting."""
        return pending.message.id in self.pending

    @property
    def _has_room(self) -> bool:
        # What has its outcome is no longer waiting at the door, whatever the last credit said.
        return self._bytes < self._most_bytes and (
            len(self.pending) < self._size or self.sent - self._credited < self._size
        )

    def _put(self, pending: Pending) -> None:
        pending.size = self._send(pending)
        self.pending[pending.message.id] = pending
        self.sent += 1
        self._bytes += pending.size

    def _admit(self) -> None:
        while self._waiting and self._has_room:
            _, pending = self._waiting.popitem(last=False)
            if pending.chunk is not None and len(together := self._others_with(pending)) > 1:
                self._put_together(together)
            elif not pending.outcome.done():
                try:
                    self._put(pending)
                except Exception as error:  # noqa: BLE001 (also what a user's own class raises: its sender's)
                    pending.end(error=error)

    def _others_with(self, first: Pending) -> list[Pending]:
        """Take out what may go together with a message, as far as there is room."""
        together, size = [first], first.size
        room = self._size - min(len(self.pending), self.sent - self._credited)
        while self._waiting and len(together) < room:
            following = next(iter(self._waiting.values()))
            size += following.size
            follows = following.message.id == first.message.id + len(together)
            if following.chunk is not first.chunk or not follows or self._bytes + size > self._most_bytes:
                break
            self._waiting.popitem(last=False)
            together.append(following)
        return together

    def _put_together(self, chunk: list[Pending]) -> None:
        self._send_together(chunk)
        self.pending.update((pending.message.id, pending) for pending in chunk)
        self.sent += len(chunk)
        self._bytes += sum(pending.size for pending in chunk)
