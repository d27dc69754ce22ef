"""Callers that ask all the time, and count what becomes of it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from faults.agents import Work
from faults.result import Ask, Tally
from slim_actors import Anycast, DeliveryError, Runtime

__all__ = ["Load"]

_PATIENCE = 40.0
"""Seconds for the last outcomes: longer than any deadline. What has none then is reported as missing."""


class Load:
    """Asks a number of questions, or asks until it is told to stop.

    Args:
        runtime: Who asks.
        name: Who is asked.
        asks: How many questions; without end if 0.
        callers: How many are under way at once.
        pause: Seconds that each caller waits after an answer.
        hurry: How many questions are asked without a pause, first.
        work: Seconds that each answer takes to make.
        keep: How many of the last asks are remembered; all by default.
    """

    def __init__(
        self,
        runtime: Runtime,
        name: str,
        *,
        asks: int = 0,
        callers: int = 32,
        pause: float = 0.0,
        hurry: int = 0,
        work: float = 0.0,
        keep: int | None = None,
    ) -> None:
        self.tally = Tally()
        self.tally.asks = type(self.tally.asks)(maxlen=keep)
        self._runtime = runtime
        self._route = Anycast(name)
        self._numbers = iter(range(asks)) if asks else itertools.count()
        self._pause, self._hurry, self._work = pause, hurry, work
        self._stopped = asyncio.Event()
        self._callers = [asyncio.create_task(self._ask_on()) for _ in range(callers)]

    @property
    def is_over(self) -> bool:
        """Whether every question has its outcome."""
        return all(caller.done() for caller in self._callers)

    async def passes(self, count: int, within: float = _PATIENCE) -> bool:
        """Wait until so many more were answered; tell whether they were in time."""
        wanted = self.tally.answered + count
        ends = time.monotonic() + within
        while self.tally.answered < wanted and time.monotonic() < ends and not self.is_over:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return self.tally.answered >= wanted

    @asynccontextmanager
    async def until_left(self) -> AsyncIterator[Load]:
        """Ask as long as the block lasts, then wait for the last outcomes."""
        try:
            yield self
        finally:
            await self.stop()

    async def stop(self) -> None:
        """Ask nothing more, and wait for the last outcomes."""
        self._stopped.set()
        _, hanging = await asyncio.wait(self._callers, timeout=_PATIENCE)
        for caller in hanging:
            caller.cancel()
        await asyncio.gather(*self._callers, return_exceptions=True)
        for caller in self._callers:
            if not caller.cancelled():
                caller.result()

    async def _ask_on(self) -> None:
        for number in self._numbers:
            if self._stopped.is_set():
                return
            await self._ask(number)
            if self._pause and number >= self._hurry:
                await asyncio.sleep(self._pause)

    async def _ask(self, number: int) -> None:
        tally = self.tally
        tally.sent += 1
        began = time.monotonic()
        outcome, process = "", 0
        try:
            answer, process = await self._runtime.ask(self._route, Work(number, self._work))
        except DeliveryError as error:
            outcome = type(error).__name__
            tally.failed[outcome] += 1
        else:
            tally.answered += answer == number
            tally.wrong += answer != number
        tally.asks.append(Ask(began, time.monotonic() - began, outcome, process))
