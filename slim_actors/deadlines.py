"""Deadlines: one timer for many of them.

A timer for each message costs more than the rest of its bookkeeping. Most messages end long before their
deadline, and those that come later have later ones, so one timer for the earliest is hardly ever set again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from math import inf

__all__ = ["Deadlines"]


class Deadlines:
    """Calls back at the earliest of many deadlines, and not for those that have gone by then.

    Args:
        due: Called with the time when a deadline has passed: it ends what is due, and gives the next
            deadline, infinite if there is none.
    """

    def __init__(self, due: Callable[[float], float]) -> None:
        self._due = due
        self._loop = asyncio.get_running_loop()
        self.next = inf
        """The earliest of them; a later one need not be watched."""
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, deadline: float) -> None:
        """Call back at this deadline, unless that happens earlier for another one."""
        if deadline >= self.next:
            return
        self.close()
        self.next = deadline
        # In a context of its own: that of whoever comes first holds the message that is being handled.
        self._timer = self._loop.call_at(deadline, self._ring, context=Context())

    def close(self) -> None:
        """Call back no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self.next = inf

    def _ring(self) -> None:
        self._timer, self.next = None, inf
        self.watch(self._due(self._loop.time()))
