"""Middleware sees every message of a runtime: this one counts how they end."""

import asyncio
import logging
from collections import Counter
from typing import Any

from attrs import frozen

from slim_actors import Agent, Anycast, Context, Middleware, RemoteError, Request, Runtime, handler

# The runtime logs failing handlers, with their tracebacks; that would be noise here.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)


@frozen
class Divide(Request[float]):
    a: float
    b: float


class Calculator(Agent, name="demo/ns/calculator"):
    @handler
    async def divide(self, message: Divide) -> float:
        return message.a / message.b


class Count(Middleware):
    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()

    def outcome(self, ctx: Context, message: Any, error: Exception | None) -> None:
        self.outcomes[type(error).__name__ if error else "reply"] += 1


async def main() -> None:
    count = Count()
    async with Runtime(embed_node=True, middleware=[count]) as runtime:
        await runtime.spawn(Calculator)
        for b in (1, 2, 0, 4):
            try:
                print(await runtime.ask(Anycast("demo/ns/calculator"), Divide(8, b)))
            except RemoteError as error:
                print(error)
    print(dict(count.outcomes))


if __name__ == "__main__":
    asyncio.run(main())
