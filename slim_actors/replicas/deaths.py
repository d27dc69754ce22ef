"""Restart intensity: how often one replica may die, and the pause before each restart."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from slim_actors.exits import Exit
from slim_actors.replicas.events import ReplicaFailed

__all__ = ["Deaths", "jittered"]

_RESTARTS, _WITHIN = 5, 30.0
_BACKOFF_FIRST, _BACKOFF_MOST = 0.1, 5.0


class Deaths:
    """The last deaths of one replica.

    Args:
        number: Which replica it is.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._times: deque[float] = deque(maxlen=_RESTARTS + 1)

    def add(self, reason: str) -> float:
        """Count a death; give the seconds to wait before the next start.

        Raises:
            ReplicaFailed: There were more than 5 within 30 s.
        """
        now = asyncio.get_running_loop().time()
        self._times.append(now)
        if len(self._times) > _RESTARTS and now - self._times[0] < _WITHIN:
            raise ReplicaFailed(
                f"Replica {self._number} ended {len(self._times)} times within {_WITHIN:.0f} s, "
                f"last: {reason}. It is not started again.",
                Exit.GAVE_UP,
            )
        recent = sum(1 for time in self._times if now - time < _WITHIN)
        return jittered(min(_BACKOFF_MOST, _BACKOFF_FIRST * 2.0**recent), 0.5, 1.0)


def jittered(seconds: float, least: float, most: float) -> float:
    """Give a random part of a pause, so that many do not come back at once."""
    return seconds * random.uniform(least, most)  # noqa: S311 (jitter is no secret)
