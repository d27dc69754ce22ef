"""A clock that jumps: when every task waits for a time, that time is now."""

from __future__ import annotations

import asyncio
from typing import Any, Self

from slim_actors.errors import ConfigurationError

__all__ = ["VirtualClock"]


class VirtualClock:
    """Makes the running event loop's time virtual, for the length of a ``with``.

    A sleep or a deadline then takes no time: as soon as nothing else can happen, the clock jumps to the
    next one. Threads and sockets do not stop the clock, so nothing that is tested with it may wait for
    them with a deadline.

    Raises:
        ConfigurationError: The event loop is not one of asyncio's own.

    Example:
        .. code-block:: python

            with VirtualClock():
                await asyncio.sleep(3600)    # returns at once
    """

    def __init__(self) -> None:
        self._offset = 0.0

    def __enter__(self) -> Self:
        loop: Any = asyncio.get_running_loop()
        selector = getattr(loop, "_selector", None)
        if selector is None:
            raise ConfigurationError(
                f"A virtual clock needs asyncio's own event loop, not {type(loop).__name__}."
            )
        self._loop, self._selector = loop, selector
        self._real_time, self._real_select = loop.time, selector.select
        if hasattr(self._real_time, "clock"):
            raise ConfigurationError("This event loop has a virtual clock already.")

        def time() -> float:
            return float(self._real_time() + self._offset)

        def select(timeout: float | None = None) -> Any:
            if timeout is None or timeout <= 0:
                return self._real_select(timeout)
            ready = self._real_select(0)
            if not ready:
                self._offset += timeout
            return ready

        time.clock = self  # type: ignore[attr-defined]
        loop.time, selector.select = time, select
        return self

    def __exit__(self, *_: object) -> None:
        del self._loop.time, self._selector.select

    def advance(self, seconds: float) -> None:
        """Let time pass for everybody who looks at the clock."""
        self._offset += seconds
