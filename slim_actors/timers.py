"""The timers of an instance: ``@every`` and ``ctx.after``, both through its own mailbox."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from slim_actors.declaration import Handler, Timer
from slim_actors.errors import DeliveryError
from slim_actors.mailbox import Envelope

if TYPE_CHECKING:
    from slim_actors.cell import Cell

__all__ = ["TICK", "Own", "Timers"]

TICK = object()
"""What a timer's handler declares: it takes no message."""


class Own:
    """The origin of what an instance sends to itself: nobody else waits for the outcome."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def accepted(self, envelope: Envelope) -> None:
        """See `Origin.accepted`."""

    def accepted_all(self, envelopes: Sequence[Envelope]) -> None:
        """See `Origin.accepted_all`."""

    def replied(self, envelope: Envelope, value: Any) -> None:
        """See `Origin.replied`."""
        self._ended()

    def failed(self, envelope: Envelope, error: DeliveryError) -> None:
        """See `Origin.failed`."""
        self._ended()

    def room(self) -> None:
        """See `Origin.room`."""


class Timers:
    """What one instance is to be reminded of.

    Args:
        cell: Who is reminded.
    """

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._ticking: list[asyncio.Task[None]] = []
        self._later: WeakSet[asyncio.TimerHandle] = WeakSet()
        """Those that the event loop still has: one that was cancelled is nobody's any more."""
        self._is_over = False

    def start(self) -> None:
        """Begin with what the agent declares with ``@every``."""
        for timer in self._cell.declaration.timers:
            name = f"{self._cell.address} {timer.method}"
            self._ticking.append(asyncio.create_task(self._tick(timer), name=name))

    def after(self, delay: float, message: Any) -> asyncio.TimerHandle:
        """Deliver a message to the instance after so many seconds.

        Raises:
            UnhandledMessage: There is no handler for its type.
        """
        handler = self._cell.own_handler(message)
        handle = asyncio.get_running_loop().call_later(delay, self._cell.deliver_own, message, handler)
        self._later.add(handle)
        if self._is_over:
            # The life that wanted it has ended, and it would come to the next one.
            handle.cancel()
        return handle

    def stop(self) -> None:
        """Remind of nothing more, nor of what is still asked for."""
        self._is_over = True
        for task in self._ticking:
            task.cancel()
        for handle in self._later:
            handle.cancel()

    async def ended(self) -> None:
        """Wait until the timers that were stopped have ended."""
        if self._ticking:
            await asyncio.wait(self._ticking)

    async def _tick(self, timer: Timer) -> None:
        loop = asyncio.get_running_loop()
        handler = Handler(timer.method, TICK, timer.takes)
        due = loop.time()
        while True:
            due = max(due + timer.seconds, loop.time())
            await asyncio.sleep(due - loop.time())
            done = asyncio.Event()
            envelope = self._cell.deliver_own(None, handler, ended=done.set)
            try:
                await done.wait()
            finally:
                # A tick that still waits when its instance ends is nobody's message.
                self._cell.take_back(envelope)
