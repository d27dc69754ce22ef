"""What a caller is told of the mailbox: which tells it has accepted, and credit for the next messages."""

from __future__ import annotations

import asyncio

from slim_actors import wire
from slim_actors.link import Link

__all__ = ["WINDOW", "Receipts"]

WINDOW = 1024
"""Messages that each caller may have under way which the mailbox has not accepted yet."""

_CREDIT_EVERY = WINDOW // 4


class Receipts:
    """The receipts of one conversation.

    Args:
        link: What carries them.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._unsaid: list[tuple[int, int]] = []
        """Tells that were accepted, and whose callers are told in a moment; as in `wire.Accepted`."""
        self.received = 0
        self._taken = 0
        self._credited = 0

    @property
    def waiting(self) -> int:
        """How many messages wait at the door."""
        return self.received - self._taken

    def taken(self, count: int = 1) -> None:
        """Count messages that no longer wait at the door; the caller gets credit for the next ones."""
        self._taken += count
        if self._taken - self._credited >= _CREDIT_EVERY and self._link.framed:
            self._credited = self._taken
            self._link.send(wire.Credit(self._taken))

    def accepted(self, message_id: int) -> None:
        """Say soon that a tell was accepted, with what else one payload brought."""
        # A frame for each would cost more than the tells.
        if not self._unsaid:
            self._loop.call_soon(self.say)
        first, count = self._unsaid[-1] if self._unsaid else (message_id, 0)
        if first + count == message_id:
            self._unsaid[-1:] = [(first, count + 1)]
        else:
            self._unsaid.append((message_id, 1))

    def accepted_all(self, first: int, count: int) -> None:
        """Say that tells with ids that follow each other were accepted."""
        # At once, before the handlers run: the sooner the caller knows, the sooner it sends what comes next.
        self._unsaid.append((first, count))
        self.say()

    def say(self) -> None:
        """Say what has not been said."""
        runs, self._unsaid = self._unsaid, []
        for start in range(0, len(runs), WINDOW):
            self._link.send(wire.Accepted(runs[start : start + WINDOW]))
