"""One operation at a time, of which the newest counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from slim_actors.exits import Exit
from slim_actors.replicas.events import ReplicaFailed

__all__ = ["Latest"]

T = TypeVar("T")


class Latest:
    """Does one thing at a time; a newer one takes over from the one before.

    Args:
        what: What that is called.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._task: asyncio.Task[Any] | None = None
        self._is_over = False

    @property
    def is_busy(self) -> bool:
        """Whether something is under way."""
        return self._task is not None and not self._task.done()

    async def run(self, begin: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it, whether or not whoever asked for it waits for the end.

        Raises:
            ReplicaFailed: A newer one has taken over, or all is over.
        """
        await self._cancel()
        if self._is_over:
            raise ReplicaFailed("The run is stopping.", Exit.FAILED)
        task = asyncio.create_task(begin())
        self._task = task
        # Looked at, so that asyncio does not report it where nobody has waited for the end.
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([task])
        if task.cancelled():
            why = "The run is stopping" if self._is_over else f"Another {self._what} has taken over"
            raise ReplicaFailed(f"{why}.", Exit.FAILED)
        return task.result()

    async def close(self) -> None:
        """Begin nothing more, and end what is under way."""
        self._is_over = True
        await self._cancel()

    async def _cancel(self) -> None:
        while self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])
