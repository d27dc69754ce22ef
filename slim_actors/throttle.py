"""Log lines that somebody else can bring about: a few of them, not one for each message."""

from __future__ import annotations

import time
from collections.abc import Hashable

__all__ = ["Throttle"]

_SECONDS = 60.0
_MOST_KEYS = 100


class Throttle:
    """Says whether a line may be written: one a minute about each thing, and 100 a minute in all.

    The second bound is for whoever comes under ever new names.

    Example:
        >>> once = Throttle()
        >>> once("mallory"), once("mallory"), once("bob")
        (True, False, True)
    """

    def __init__(self) -> None:
        self._since = 0.0
        self._seen: set[Hashable] = set()

    def __call__(self, key: Hashable) -> bool:
        """Tell whether it is time for a line about this."""
        now = time.monotonic()
        if now - self._since > _SECONDS:
            self._since = now
            self._seen.clear()
        if key in self._seen or len(self._seen) >= _MOST_KEYS:
            return False
        self._seen.add(key)
        return True
