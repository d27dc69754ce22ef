"""Patience: how long a flow may stand still while others wait for what it keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from math import inf

from msgspec import Struct

__all__ = ["Patience"]

_SOON = 0.001
"""Seconds that no timer is set for."""


class Patience(Struct, frozen=True):
    """How long one end of a flow waits for the other while it keeps others waiting.

    Attributes:
        seconds: After so many, for which the flow stood still and others waited, it is over.
        others_since: Says since when others wait; infinite if none do.
        over: Called when it is over.
    """

    seconds: float = inf
    others_since: Callable[[], float] = lambda: inf
    over: Callable[[], object] = lambda: None

    async def wait(self, change: asyncio.Future[None]) -> bool:
        """Wait for a change; give False when patience is at its end."""
        if self.seconds == inf:
            await change
            return True
        loop = asyncio.get_running_loop()
        since, pause = loop.time(), self.seconds
        while not (await asyncio.wait([change], timeout=pause))[0]:
            left = max(since, self.others_since()) + self.seconds - loop.time()
            if left <= _SOON:
                self.over()
                return False
            pause = min(left, self.seconds)
        return True
