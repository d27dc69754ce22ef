"""The dedupe window: what became of the messages of each sender, so that none is run twice."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from slim_actors.mailbox import Envelope
from slim_actors.names import Address

__all__ = ["Outcomes"]

_PER_SENDER = 4096
_SENDERS = 1024
_SECONDS = 120.0
_BYTES_PER_SENDER = 8 * 1024 * 1024


class _Window:
    def __init__(self) -> None:
        self.entries: OrderedDict[int, Envelope | bytes] = OrderedDict()
        self.begun: deque[float] = deque()
        self.size = 0


class Outcomes:
    """Remembers, for each sender and id, the running envelope or the encoded frame that ended it.

    Bounded: the last 4,096 messages, 8 MiB of outcomes and 120 s of each of the last 1,024 senders. A message
    that is sent again after that counts as a new one.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[Address, _Window] = OrderedDict()

    def find(self, sender: Address, message_id: int) -> Envelope | bytes | None:
        """Give the envelope of a message that is under way, the frame that ended it, or None if it is new."""
        window = self._windows.get(sender)
        return window.entries.get(message_id) if window else None

    def begin(self, envelope: Envelope) -> None:
        """Remember that a message is under way."""
        window = self._windows.get(envelope.sender)
        if window is None:
            window = self._windows[envelope.sender] = _Window()
            if len(self._windows) > _SENDERS:
                self._windows.popitem(last=False)
        now = asyncio.get_running_loop().time()
        window.entries[envelope.id] = envelope
        window.begun.append(now)
        while len(window.entries) > _PER_SENDER or now - window.begun[0] > _SECONDS:
            self._forget_oldest(window)

    def end(self, envelope: Envelope, frame: bytes) -> None:
        """Remember the frame that ended a message."""
        window = self._windows.get(envelope.sender)
        if window is None or envelope.id not in window.entries:
            return
        window.entries[envelope.id] = frame
        window.size += len(frame)
        while window.size > _BYTES_PER_SENDER and len(window.entries) > 1:
            self._forget_oldest(window)

    @staticmethod
    def _forget_oldest(window: _Window) -> None:
        _, oldest = window.entries.popitem(last=False)
        window.begun.popleft()
        if isinstance(oldest, bytes):
            window.size -= len(oldest)
