"""A handler that yields makes a stream of replies; aiostream's operators apply to it at the caller."""

import asyncio
from collections.abc import AsyncIterator

from aiostream import pipe
from attrs import frozen

from slim_actors import Agent, Anycast, Runtime, StreamRequest, handler


@frozen
class Count(StreamRequest[int]):
    start: int


class Counter(Agent, name="demo/ns/counter"):
    @handler
    async def count(self, message: Count) -> AsyncIterator[int]:
        number = message.start
        while True:
            yield number
            number += 1


def square(number: int, *_: int) -> int:
    return number * number


async def main() -> None:
    counter = Anycast("demo/ns/counter")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Counter)
        async for number in runtime.stream(counter, Count(7)):
            print(number)
            if number == 9:
                break  # this stops the agent's generator
        async for number in runtime.stream(counter, Count(1)) | pipe.map(square) | pipe.take(4):
            print(number)


if __name__ == "__main__":
    asyncio.run(main())
