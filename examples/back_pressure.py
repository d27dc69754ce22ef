"""A mailbox is bounded: with overflow="busy" one message too many is refused, and may come again later."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Busy, Mailbox, Runtime, handler


@frozen
class Page:
    number: int


class Printer(Agent, name="demo/ns/printer"):
    mailbox = Mailbox(capacity=2, overflow="busy", retry_after=0.2)

    def __init__(self) -> None:
        self.paper = asyncio.Event()

    @handler
    async def page(self, message: Page) -> None:
        await self.paper.wait()
        print(f"printed page {message.number}")


async def main() -> None:
    route = Anycast("demo/ns/printer")
    printer = Printer()
    async with Runtime(embed_node=True) as runtime:
        ref = await runtime.spawn(lambda: printer)
        for number in range(1, 5):
            while True:
                try:
                    await runtime.tell(route, Page(number))
                    break
                except Busy as busy:
                    print(f"page {number}: busy, with {ref.stats.depth} pages waiting")
                    printer.paper.set()
                    await asyncio.sleep(busy.retry_after)
    # Leaving the runtime finishes what was accepted.


if __name__ == "__main__":
    asyncio.run(main())
