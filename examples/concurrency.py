"""One instance handles one message at a time, unless it says concurrency = n."""

import asyncio

from attrs import frozen

from slim_actors import Agent, Anycast, Request, Runtime, handler


@frozen
class Fetch(Request[str]):
    page: int


class Fetcher(Agent, name="demo/ns/fetcher"):
    concurrency = 5

    def __init__(self) -> None:
        self.all_here = asyncio.Barrier(5)

    @handler
    async def fetch(self, message: Fetch) -> str:
        # Nobody passes before five handlers run at the same time.
        await self.all_here.wait()
        return f"page {message.page}"


async def main() -> None:
    route = Anycast("demo/ns/fetcher")
    async with Runtime(embed_node=True) as runtime:
        await runtime.spawn(Fetcher)
        print(await asyncio.gather(*(runtime.ask(route, Fetch(number), timeout=5) for number in range(5))))


if __name__ == "__main__":
    asyncio.run(main())
