"""A probe: an agent that remembers what it was sent, and answers as a test tells it to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from slim_actors.agent import Agent
from slim_actors.context import Context

__all__ = ["Probe"]


class Probe(Agent):
    """Takes any message, remembers it, and answers with what it was told to; None by default.

    Attributes:
        messages: All messages so far, in the order in which they were handled. Typed ones are dicts here:
            a probe declares no types.
        contexts: The `Context` of each.

    Example:
        .. code-block:: python

            probe = await runtime.probe("test/ns/log")
            await runtime.tell(Anycast("test/ns/log"), "hello")
            assert await probe.received() == "hello"
    """

    def __init__(self) -> None:
        self.messages: list[Any] = []
        self.contexts: list[Context] = []
        self._answer: Callable[[Any], Any] = lambda _: None
        self._new: asyncio.Queue[Any] = asyncio.Queue()

    async def receive(self, message: Any, ctx: Context) -> Any:
        """Remember and answer."""
        self.messages.append(message)
        self.contexts.append(ctx)
        self._new.put_nowait(message)
        return self._answer(message)

    def answers(self, answer: Callable[[Any], Any]) -> None:
        """Answer every further message with what a function of it gives, or raises."""
        self._answer = answer

    async def received(self, within: float = 3.0) -> Any:
        """Wait for the next message that was not waited for yet.

        Raises:
            TimeoutError: None came within so many seconds.
        """
        async with asyncio.timeout(within):
            return await self._new.get()
