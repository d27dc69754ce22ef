"""One value for all who want it: made at the first use, and given in the order of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Generic, TypeVar

from slim_actors.errors import Stopped

__all__ = ["Shared", "sender_stopped"]

T = TypeVar("T")


def sender_stopped() -> Stopped:
    """Make the error of whoever waits for what is made no longer: he himself was not cancelled."""
    return Stopped(
        "The runtime or the agent that sends this was stopped before anybody was found who takes it."
    )


class Shared(Generic[T]):
    """Makes a value once, whoever asks for it and however soon each of them gives up.

    Args:
        make: Makes it. When that raises, all who wait for it get the error, and the next one tries again.
    """

    def __init__(self, make: Callable[[], Awaitable[T]]) -> None:
        self._make = make
        self._making: asyncio.Future[T] | None = None
        self._turns: dict[asyncio.Future[None], None] = {}
        """Those who wait for what is being made, in the order of asking; each can leave at once."""
        self._waiting = 0
        self._is_stopped = False
        self.value: T | None = None
        """What was made, once it is."""

    @property
    def at_hand(self) -> T | None:
        """The value, once all have it who waited for it: nobody goes before them."""
        return None if self._waiting else self.value

    @property
    def is_wanted(self) -> bool:
        """Whether it is being made, or somebody waits for it."""
        return self._waiting > 0 or (self._making is not None and not self._making.done())

    async def get(self) -> T:
        """Give the value; who comes while it is being made waits for the same one.

        Raises:
            Stopped: It is made no longer.
            Exception: What making it raises.
        """
        making = self._making
        if making is None or (making.done() and self.value is None):
            if self._is_stopped:
                raise sender_stopped()
            making = self._making = asyncio.ensure_future(self._made())
            self._turns = {}
            making.add_done_callback(partial(_wake, self._turns))
            # Looked at, so that asyncio does not report it when all who waited have given up meanwhile.
            making.add_done_callback(lambda made: made.cancelled() or made.exception())
        loop = asyncio.get_running_loop()
        turn, turns = loop.create_future(), self._turns
        turns[turn] = None
        if making.done():
            # Behind those who are being woken: each goes on at once when it has the value.
            loop.call_soon(_wake, turns)
        self._waiting += 1
        try:
            await turn
            if making.cancelled():
                raise sender_stopped()
            return making.result()
        finally:
            turns.pop(turn, None)
            self._waiting -= 1

    async def stop(self) -> T | None:
        """Make it no longer; give what was made."""
        self._is_stopped = True
        # Where it is made, without a turn for others: whoever ends it next may be cancelled meanwhile.
        if self._making is not None and not self._making.done():
            self._making.cancel()
            await asyncio.wait([self._making])
        return self.value

    async def _made(self) -> T:
        self.value = value = await self._make()
        return value


def _wake(turns: dict[asyncio.Future[None], None], _: object = None) -> None:
    for turn in turns:
        if not turn.done():
            turn.set_result(None)
    turns.clear()
