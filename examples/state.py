"""A state is kept in the runtime's store: each life of the process goes on where the last one ended."""

import asyncio
import logging
import tempfile
from pathlib import Path

from attrs import define

from slim_actors import Agent, Anycast, RemoteError, Runtime, State, handler

# A handler that fails is logged too; here it is printed.
logging.getLogger("slim_actors").setLevel(logging.CRITICAL)


@define
class Tally:
    count: int = 0


class Counter(Agent, name="demo/ns/counter"):
    tally = State(Tally)

    @handler
    async def add(self, amount: int) -> int:
        self.tally.count += amount
        if self.tally.count < 0:
            raise ValueError("less than nothing")
        return self.tally.count


async def life(store: Path, *amounts: int) -> None:
    counter = Anycast("demo/ns/counter")
    async with Runtime(embed_node=True, store=store) as runtime:
        await runtime.spawn(Counter)
        for amount in amounts:
            try:
                print(await runtime.ask(counter, amount))
            except RemoteError as error:
                # What the handler had changed is as it was before.
                print(error)


async def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        await life(Path(folder) / "counter.db", 1, 2, 3)
        await life(Path(folder) / "counter.db", 4, -100, 0)


if __name__ == "__main__":
    asyncio.run(main())
