"""Restart intensity: how often one replica may die, and the pause before each restart."""

from __future__ import annotations

import asyncio

from slim_actors.backoff import Backoff
from slim_actors.exits import Exit
from slim_actors.intensity import Intensity
from slim_actors.replicas.events import ReplicaFailed
from slim_actors.supervision import Restart

__all__ = ["Deaths"]

_POLICY = Restart(limit=5, within=30.0, backoff=Backoff(0.1, 5.0))


class Deaths:
    """The last deaths of one replica.

    Args:
        number: Which replica it is.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._intensity = Intensity(_POLICY)

    def add(self, reason: str) -> float:
        """Count a death; give the seconds to wait before the next start.

        Raises:
            ReplicaFailed: There were more than 5 within 30 s.
        """
        pause = self._intensity.pause(asyncio.get_running_loop().time())
        if pause is None:
            raise ReplicaFailed(
                f"Replica {self._number} ended {_POLICY.limit + 1} times within {_POLICY.within:.0f} s, "
                f"last: {reason}. It is not started again.",
                Exit.GAVE_UP,
            )
        return pause

    def began(self) -> None:
        """Take note that the replica is ready: kept for 30 s, it begins with the first pause again."""
        self._intensity.began(asyncio.get_running_loop().time())
