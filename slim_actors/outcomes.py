"""The dedupe window: what became of the messages of each sender, so that none is run twice."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque

from slim_actors.mailbox import Envelope
from slim_actors.names import Address

__all__ = ["ACCEPTED", "Outcomes"]

ACCEPTED = b""
"""Stands for the outcome of a tell, which takes no frame of its own."""

_PER_SENDER = 4096
_SENDERS = 1024
_SECONDS = 120.0
_BYTES = 64 * 1024 * 1024


_Key = tuple[Address, str, str]


def _key(sender: Address) -> _Key:
    # With the identity: whoever comes under the name and id of another must not get that one's replies.
    return sender, sender.subject, sender.issuer


class _Window:
    def __init__(self) -> None:
        self.entries: dict[int, Envelope | bytes] = {}
        self.ended: deque[tuple[float, int]] = deque()
        """When which message ended, in that order."""
        self.size = 0


class Outcomes:
    """Remembers, for each sender and id, the running envelope or the encoded frame that ended it.

    Bounded: the last 4,096 messages and 120 s of each of the 1,024 senders that sent last, and 64 MiB of
    outcomes in all. What is still running is forgotten only with its sender, when 1,024 others have sent
    since. A message that is sent again after that counts as a new one.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._latest: tuple[Address, _Window] | None = None

    def ids(self, sender: Address) -> list[int]:
        """Give the ids of all messages of a sender that are remembered."""
        window = self._find(sender)
        return list(window.entries) if window else []

    def begin(self, envelope: Envelope) -> Envelope | bytes | None:
        """Remember that a message is under way, and give None if it is new.

        Of one that is known give the envelope with which it is under way, or the frame that ended it.
        """
        window = self._find(envelope.sender)
        if window is None:
            window = self._windows[_key(envelope.sender)] = _Window()
            if len(self._windows) > _SENDERS:
                self._latest = None
                _, forgotten = self._windows.popitem(last=False)
                self._size -= forgotten.size
        known = window.entries.setdefault(envelope.id, envelope)
        return None if known is envelope else known

    def end(self, envelope: Envelope, frame: bytes) -> None:
        """Remember the frame that ended a message, or `ACCEPTED`."""
        window = self._find(envelope.sender)
        if window is None or envelope.id not in window.entries:
            return
        now, size = self._loop.time(), len(frame)
        ended = window.ended
        window.entries[envelope.id] = frame
        ended.append((now, envelope.id))
        window.size += size
        self._size += size
        while len(ended) > _PER_SENDER or now - ended[0][0] > _SECONDS:
            self._forget_oldest(window)
        # The last one stays, however large: it is the likeliest to be asked for again.
        while self._size > _BYTES and self._size > size:
            oldest = next(iter(self._windows.values()))
            if oldest.ended:
                self._forget_oldest(oldest)
            elif len(self._windows) > 1:
                self._windows.move_to_end(next(iter(self._windows)))
                self._latest = None
            else:
                break

    def forget(self, envelope: Envelope) -> None:
        """Forget a message that is under way: what becomes of it tells nobody anything."""
        window = self._find(envelope.sender)
        if window is not None and window.entries.get(envelope.id) is envelope:
            del window.entries[envelope.id]

    def _find(self, sender: Address) -> _Window | None:
        """Give the window of a sender, which is from then on the one that sent last."""
        # Nearly always the same sender as before, and then there is nothing to look up.
        if self._latest is not None and self._latest[0] is sender:
            return self._latest[1]
        key = _key(sender)
        window = self._windows.get(key)
        if window is not None:
            self._windows.move_to_end(key)
            self._latest = (sender, window)
        return window

    def _forget_oldest(self, window: _Window) -> None:
        _, message_id = window.ended.popleft()
        frame = window.entries.pop(message_id, None)
        if isinstance(frame, bytes):
            window.size -= len(frame)
            self._size -= len(frame)
