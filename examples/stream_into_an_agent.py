"""Items that follow a message: the agent reads them one by one, and the caller is held to its pace."""

import asyncio
from collections.abc import AsyncIterator

from attrs import frozen

from slim_actors import Agent, Anycast, Request, Runtime, StreamRequest, handler


@frozen
class Sum(Request[int]):
    start: int = 0


@frozen
class RunningSum(StreamRequest[int]):
    pass


class Adder(Agent, name="demo/ns/adder"):
    @handler
    async def sum(self, message: Sum, items: AsyncIterator[int]) -> int:
        total = message.start
        async for item in items:
            total += item
        return total

    @handler
    async def running_sum(self, message: RunningSum, items: AsyncIterator[int]) -> AsyncIterator[int]:
        total = 0
        async for item in items:
            total += item
            yield total


async def numbers(up_to: int) -> AsyncIterator[int]:
    for number in range(1, up_to + 1):
        yield number


async def main() -> None:
    adder = Anycast("demo/ns/adder")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Adder)
        print(await runtime.ask(adder, Sum(), items=numbers(1000)))
        async for total in runtime.stream(adder, RunningSum(), items=numbers(4)):
            print(total)


if __name__ == "__main__":
    asyncio.run(main())
