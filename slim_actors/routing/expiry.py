"""When the messages to one replica expire: each at its own deadline, and not all are looked at for each."""

from __future__ import annotations

from heapq import heappop, heappush
from math import inf

from slim_actors.deadlines import Deadlines
from slim_actors.routing.outgoing import Chunk, Late, Outgoing
from slim_actors.routing.window import Window

__all__ = ["Expiry"]

_FEW = 32
_PART = 8
"""Of those that have no outcome, one in so many, and a few, are put in order at each look at all of them."""


class Expiry:
    """Ends each message of a window at its deadline. A `Chunk` is ended by who made it.

    The deadlines up to a horizon are kept in order. Beyond it are nearly all, for most messages have their
    outcome long before: nothing is done for those until the horizon is reached, and then all are looked at.

    Args:
        window: What is under way, or waits.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._deadlines = Deadlines(self._expire)
        self._soon: list[tuple[float, int]] = []
        """A heap: the deadlines before the horizon, each with the id of its message."""
        self.horizon = inf
        """A message that expires before this must be watched; infinite when nothing is."""

    def watch(self, message: Outgoing) -> None:
        """Take note of a message that expires before the horizon."""
        soon, deadline = self._soon, (message.expires, message.id)
        if soon and deadline >= soon[0]:
            if len(soon) < len(self._window):
                heappush(soon, deadline)
                return
            # Most have their outcome by now. The others are found again at the next look at all.
            deadline = soon[0]
        self._soon = [deadline]
        self.horizon = deadline[0]
        self._deadlines.watch(self.horizon)

    def close(self) -> None:
        """End nothing any more."""
        self._deadlines.close()

    def _expire(self, now: float) -> float:
        """End what has no outcome at its deadline; give the next deadline."""
        while True:
            soon = self._soon
            while soon:
                expires, message_id = soon[0]
                pending = self._window.get(message_id)
                if pending is not None and not pending.outcome.done():
                    if expires > now:
                        return expires
                    pending.is_late = True
                    pending.end(error=Late())
                heappop(soon)
            self._look_at_all()
            if not self._soon:
                return inf

    def _look_at_all(self) -> None:
        waiting = sorted(
            (pending.message.expires, pending.message.id)
            for pending in self._window
            if not (isinstance(pending, Chunk) or pending.outcome.done() or pending.message.expires == inf)
        )
        # In order, it is a heap.
        self._soon = waiting[: len(waiting) // _PART + _FEW]
        self.horizon = self._soon[-1][0] if self._soon else inf
