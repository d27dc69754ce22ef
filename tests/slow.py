"""An agent whose work takes as long as it is told to."""

import asyncio
from collections.abc import AsyncIterator

from slim_actors import Agent, handler


class Slow(Agent, name="test/ns/slow"):
    concurrency = 4

    @handler
    async def work(self, message: float) -> str:
        print("working", flush=True)
        await asyncio.sleep(message)
        return "done"

    @handler
    async def drip(self, message: str) -> AsyncIterator[str]:
        while True:
            yield message
            await asyncio.sleep(0.01)
