"""Restart intensity: how many failures are too many, of an instance, of a group, or of a replica process."""

from __future__ import annotations

from collections import deque

from slim_actors.supervision import Restart

__all__ = ["Intensity"]


class Intensity:
    """Counts failures: how long to wait after the next one, and whether there were too many.

    Args:
        policy: Its limit, its seconds and its pauses.
    """

    def __init__(self, policy: Restart) -> None:
        self.policy = policy
        self._failures: deque[float] = deque(maxlen=policy.limit + 1)
        self._attempt = 0
        self._well_since = float("inf")

    def pause(self, now: float) -> float | None:
        """Count a failure; give the seconds before the restart, or None if there were too many."""
        self._failures.append(now)
        if len(self._failures) > self.policy.limit and now - self._failures[0] <= self.policy.within:
            return None
        if now - self._well_since >= self.policy.within:
            self._attempt = 0
        self._well_since = float("inf")
        self._attempt += 1
        return self.policy.backoff.pause(self._attempt - 1)

    def began(self, now: float) -> None:
        """Take note that all is well again."""
        self._well_since = now
