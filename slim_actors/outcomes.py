"""The dedupe window: what became of the messages of each sender, so that none is run twice."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict, deque
from itertools import chain

from msgspec import Struct

from slim_actors.mailbox import Envelope
from slim_actors.names import Address

__all__ = ["ACCEPTED", "Outcomes"]

ACCEPTED = b""
"""Stands for the outcome of a tell, which takes no frame of its own."""

_PER_SENDER = 4096
_TOGETHER, _SHORT = 64, 4096
"""Messages that are forgotten together, and the bytes of a frame up to which it is."""
_SENDERS = 1024
_SECONDS = 120.0
_BYTES = 64 * 1024 * 1024


_Key = tuple[Address, str, str]


def _key(sender: Address) -> _Key:
    # With the identity: whoever comes under the name and id of another must not get that one's replies.
    return sender, sender.subject, sender.issuer


class _Ended(Struct):
    """Messages with ids that follow each other and that ended one after the other; forgotten together."""

    since: float
    """When the first of them ended, and when those before it had ended at the latest."""
    first: int
    stop: int
    are_tells: bool = False
    """Whether they were accepted together, and are one entry; else each has its own."""
    has_room: bool = True
    """Whether the next may be added."""


class _Window:
    def __init__(self) -> None:
        self.entries: dict[int, Envelope | bytes] = {}
        self.runs: dict[int, int] = {}
        """Tells with ids that follow each other, which were accepted together: the first id, and how many."""
        self.starts: list[int] = []
        """Their first ids, the lowest first: repeated ids must not have all runs looked through."""
        self.ended: deque[_Ended] = deque()
        """Which messages ended, in that order."""
        self.count = 0
        """How many those are."""
        self.size = 0
        self.latest = 0
        """The highest id that ever came: above it everything is new."""

    def in_a_run(self, message_id: int) -> bool:
        place = bisect_right(self.starts, message_id)
        if not place:
            return False
        first = self.starts[place - 1]
        return message_id < first + self.runs[first]

    def add_run(self, first: int, count: int) -> None:
        if first not in self.runs:
            # Nearly always at the end.
            insort(self.starts, first)
        self.runs[first] = count

    def drop_run(self, first: int) -> None:
        if self.runs.pop(first, None) is not None:
            del self.starts[bisect_left(self.starts, first)]


class Outcomes:
    """Remembers, for each sender and id, the running envelope or the encoded frame that ended it.

    Bounded: at least the last 4,096 messages, for 120 s, of each of the 1,024 senders that sent last, and
    64 MiB of outcomes in all. (What ended together is forgotten together.) What is still
    running is forgotten only with its sender, when 1,024 others have sent since. A message that is sent again
    after that counts as a new one.
    """

    def __init__(self) -> None:
        self._windows: OrderedDict[_Key, _Window] = OrderedDict()
        self._size = 0
        self._loop = asyncio.get_running_loop()
        self._latest: tuple[Address, _Window] | None = None

    def are_new(self, sender: Address, first: int) -> bool:
        """Tell, from what costs nothing to know, whether messages from this id on are surely new."""
        window = self._find(sender)
        return window is None or first > window.latest

    def ids(self, sender: Address) -> list[int]:
        """Give the ids of all messages of a sender that are remembered."""
        window = self._find(sender)
        if window is None:
            return []
        return [*window.entries, *chain.from_iterable(range(one, one + n) for one, n in window.runs.items())]

    def begin(self, envelope: Envelope) -> Envelope | bytes | None:
        """Remember that a message is under way, and give None if it is new.

        Of one that is known give the envelope with which it is under way, or the frame that ended it.
        """
        window = self._find(envelope.sender) or self._add(envelope.sender)
        if envelope.id > window.latest:
            window.latest = envelope.id
        elif window.runs and window.in_a_run(envelope.id):
            return ACCEPTED
        known = window.entries.setdefault(envelope.id, envelope)
        return None if known is envelope else known

    def begin_all(self, sender: Address, envelopes: dict[int, Envelope]) -> None:
        """Remember that messages of one sender are under way, which have rising ids."""
        window = self._find(sender) or self._add(sender)
        window.entries.update(envelopes)
        window.latest = max(window.latest, next(reversed(envelopes)))

    def accept_all(self, sender: Address, ids: range) -> None:
        """Remember that tells with ids that follow each other were accepted, as one entry for all of them."""
        window = self._find(sender) or self._add(sender)
        first, entries = ids[0], window.entries
        if first <= window.latest:
            for message_id in ids:
                entries.pop(message_id, None)
        window.latest = max(window.latest, ids[-1])
        are_tells = len(ids) > 1
        if are_tells:
            window.add_run(first, len(ids))
        else:
            entries[first] = ACCEPTED
        self._ended(window, _Ended(self._loop.time(), first, ids.stop, are_tells, not are_tells))

    def end(self, envelope: Envelope, frame: bytes) -> None:
        """Remember the frame that ended a message, or `ACCEPTED`."""
        window = self._find(envelope.sender)
        if window is None or envelope.id not in window.entries:
            return
        size = len(frame)
        window.entries[envelope.id] = frame
        window.size += size
        self._size += size
        is_short, stop = size <= _SHORT, envelope.id + 1
        latest = window.ended[-1] if window.ended else None
        if latest is not None and latest.stop == envelope.id and latest.has_room and is_short:
            # As most that came together: neither a clock nor the oldest need be looked at for each.
            latest.stop = stop
            latest.has_room = stop - latest.first < _TOGETHER
            window.count += 1
        else:
            self._ended(window, _Ended(self._loop.time(), envelope.id, stop, has_room=is_short))
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

    def _ended(self, window: _Window, latest: _Ended) -> None:
        ended = window.ended
        ended.append(latest)
        window.count += latest.stop - latest.first
        while len(ended) > 1 and (
            window.count - (ended[0].stop - ended[0].first) >= _PER_SENDER
            or latest.since - ended[1].since > _SECONDS
        ):
            self._forget_oldest(window)

    def _add(self, sender: Address) -> _Window:
        window = self._windows[_key(sender)] = _Window()
        if len(self._windows) > _SENDERS:
            _, forgotten = self._windows.popitem(last=False)
            self._size -= forgotten.size
        self._latest = (sender, window)
        return window

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
        oldest = window.ended.popleft()
        window.count -= oldest.stop - oldest.first
        if oldest.are_tells:
            window.drop_run(oldest.first)
            return
        size = 0
        for message_id in range(oldest.first, oldest.stop):
            frame = window.entries.pop(message_id, None)
            if isinstance(frame, bytes):
                size += len(frame)
        window.size -= size
        self._size -= size
