"""Frames that are too long for one payload: split into parts at one end, joined again at the other.

The parts of one frame go out in order, and one long frame after the other; short frames go out between them.
So the end that joins has never more than one frame in the making.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from functools import cache

from slim_actors import wire
from slim_actors.batches import Problem
from slim_actors.errors import Busy, MalformedMessage, PeerLost, TooLarge
from slim_actors.limits import body_room, too_large

__all__ = ["Joiner", "Splitter"]

_PART = 129 * 1024
"""Bytes of one part: over an eighth of a MiB, so that a MiB with its head leaves no few bytes for one more.
SLIM keeps the last 512 payloads of a session, whatever their size, to send them again; smaller ones cost more
time, and larger ones more memory, and short frames wait longer for their turn between them."""
_FRAME_ROOM = 64 * 1024
"""Bytes that a frame may have beside its body: type, context."""
_LOOK_EVERY = 10.0
_MOST_LOOKS = 3
"""So many in a row that have found nothing new, and a frame is given up. Counted, not measured: while this
process is frozen nothing can come, and what was sent then comes before the second look after that."""
_PREFIX = wire.join([b""])
_MOST_KEPT = 16 * 1024 * 1024


@cache
def _keep_memory() -> None:
    """Let the C library keep the memory of large frames for the next, instead of giving it back after each.

    That of GNU keeps twice the largest block that was freed so far, if that was a mapping of its own
    (mallopt(3), M_MMAP_THRESHOLD); others do as they always do. The block is never touched, so it costs
    nothing. A MiB that is echoed has 30 page faults then instead of 770, and takes a sixth less time.
    """
    bytes(_MOST_KEPT)


class Splitter:
    """The long frames that wait to be sent, and whatever must not overtake them."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, bytes]] = deque()
        self.ids: Counter[int] = Counter()
        """Whose frames they are, and how many each has; for looking only."""
        self._offset = 0

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, message_id: int) -> bool:
        return message_id in self.ids

    def add(self, message_id: int, frame: bytes) -> None:
        """Put a frame at the end."""
        if len(frame) > _PART:
            _keep_memory()
        self._frames.append((message_id, frame))
        self.ids[message_id] += 1

    def next(self) -> tuple[bytes, int]:
        """Give the next payload, and how many bytes of those that were added it carries."""
        message_id, frame = self._frames[0]
        if len(frame) <= _PART:
            self._shift()
            return wire.join([frame]), len(frame)
        offset = self._offset
        data = memoryview(frame)[offset : offset + _PART]
        self._offset += len(data)
        if self._offset == len(frame):
            self._shift()
        return wire.join_part(message_id, len(frame), offset, data), len(data)

    def drop(self, message_id: int) -> int:
        """Drop the frames of a message; give how many bytes they still had."""
        if message_id not in self.ids:
            return 0
        left = -self._offset if self._frames[0][0] == message_id else 0
        if left:
            self._offset = 0
        left += sum(len(frame) for known, frame in self._frames if known == message_id)
        self._frames = deque(entry for entry in self._frames if entry[0] != message_id)
        del self.ids[message_id]
        return left

    def clear(self) -> None:
        """Drop everything."""
        self._frames.clear()
        self.ids.clear()
        self._offset = 0

    def _shift(self) -> None:
        message_id, _ = self._frames.popleft()
        self._offset = 0
        self.ids[message_id] -= 1
        if not self.ids[message_id]:
            del self.ids[message_id]


class Joiner:
    """Joins the parts of one frame at a time.

    A part that comes twice does no harm. Where one is missing, the network lost it, and the whole frame comes
    again or is given up: what is here is let go at once, and the sender is told if nothing comes.

    Args:
        max_payload: How many bytes the body of the frame may have.
        hold: Counts bytes in, or, below 0, out; says whether there is room for them.
        problem: Told once about a frame that will never be whole, and how many bytes of what cannot be taken
            came: 0 where it is not the sender's fault.
    """

    def __init__(
        self, max_payload: int, hold: Callable[[int], bool], problem: Callable[[Problem, int], None]
    ) -> None:
        self._max_payload = max_payload
        self._hold = hold
        self._problem = problem
        self.id: int | None = None
        """Whose frame is in the making."""
        self._size = 0
        self._data = bytearray()
        self._is_broken = False
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, part: wire.Part) -> bytearray | None:
        """Take a part; give the frame, as `wire.join` makes a payload of it, once it is whole."""
        if not part.offset:
            self._begin(part)
        elif part.id != self.id or self._is_broken:
            # The rest of what was refused, dropped or lost.
            return None
        if self.id is None:
            return None
        here, end = len(self._data) - len(_PREFIX), part.offset + len(part.data)
        if part.size != self._size or end > self._size or part.offset < here < end:
            text = "The parts of the message do not fit together."
            self._refuse(MalformedMessage.code, text, here + len(part.data))
        elif part.offset > here:
            self._is_broken = True
            self._let_go()
        elif end > here:
            return self._append(part.data)
        return None

    def drop(self, message_id: int) -> None:
        """Forget what is here of a message."""
        if message_id == self.id:
            self._end()

    def close(self) -> None:
        """Forget everything."""
        self._end()

    def _begin(self, part: wire.Part) -> None:
        self._end()
        self.id, self._size = part.id, part.size
        if part.size > body_room(self._max_payload) + _FRAME_ROOM:
            self._refuse(TooLarge.code, too_large(part.size, self._max_payload), len(part.data))
            return
        _keep_memory()
        self._data += _PREFIX
        self._looks = 0
        self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)

    def _append(self, data: memoryview) -> bytearray | None:
        if not self._hold(len(data)):
            self._refuse(Busy.code, "Too many bytes of messages that are not whole wait here already.")
            return None
        self._data += data
        self._looks = 0
        if len(self._data) < self._size + len(_PREFIX):
            return None
        whole = self._data
        self._end()
        return whole

    def _look(self) -> None:
        """Give up a frame of which nothing has come for a while."""
        self._looks += 1
        if self._looks < _MOST_LOOKS:
            self._timer = asyncio.get_running_loop().call_later(_LOOK_EVERY, self._look)
        else:
            self._refuse(PeerLost.code, "Parts of the message were lost on their way.")

    def _refuse(self, code: str, reason: str, size: int = 0) -> None:
        message_id = self.id
        self._end()
        self._problem(Problem(message_id or 0, reason, code), size)

    def _end(self) -> None:
        self.id = None
        self._is_broken = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._let_go()

    def _let_go(self) -> None:
        if self._data:
            self._hold(len(_PREFIX) - len(self._data))
            # Not cleared: whoever was given it reads it.
            self._data = bytearray()
